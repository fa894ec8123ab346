"""Seeded noise on what every network returns, as if another processor had rounded: CORNERNET_TEST_NOISE=SEED.

Each value of an output moves by up to 1e-6 of that output's largest value in the image. The same backend on the same
image is moved alike whenever it runs, alone or in a batch, as one machine rounds alike; other backends and other seeds
are moved otherwise.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
import zlib

VARIABLE = "CORNERNET_TEST_NOISE"
SIZE = 1e-6
BACKENDS = {
    "cornernet_runtime.backends.onnxruntime": "OnnxRuntimeBackend",
    "cornernet_runtime.backends.openvino": "OpenVinoBackend",
    "cornernet_export.torch_backend.cpu": "TorchBackend",
}


def noisy(call, name, seed):
    """Return ``call``, a backend's, with noise on the maps that it returns."""
    import numpy as np  # noqa: PLC0415 - also loaded into processes that never run a network

    @functools.wraps(call)
    def moved(self, images):
        maps = call(self, images)
        outputs = [np.array(getattr(maps, field)) for field in type(maps).__slots__]
        for index, image in enumerate(images):
            generator = np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(image.tobytes())])
            for output in outputs:
                largest = np.abs(output[index]).max(where=np.isfinite(output[index]), initial=0)
                output[index] += generator.uniform(-SIZE, SIZE, output[index].shape).astype(output.dtype) * largest
        return type(maps)(*outputs)

    return moved


class Finder(importlib.abc.MetaPathFinder):
    """Adds noise to each backend once its module is imported."""

    def __init__(self, seed):
        self._seed, self._looking = seed, False

    def find_spec(self, name, path, target=None):  # noqa: ARG002 - the protocol's
        if name not in BACKENDS or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                backend = getattr(module, BACKENDS[name])
                backend.__call__ = noisy(backend.__call__, name, self._seed)

            spec.loader.exec_module = exec_module
        return spec


def install():
    """Add the noise that the environment asks for, if any, to the backends of this process."""
    if os.environ.get(VARIABLE) and not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(int(os.environ[VARIABLE])))

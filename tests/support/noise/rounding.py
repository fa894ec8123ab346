"""Seeded noise on what every network returns, as if another processor had rounded: CORNERNET_TEST_NOISE=SEED.

Each value of an output moves by up to 1e-6 of that output's largest value in the image. The same backend on the same
image is moved alike whenever it runs, alone or in a batch, as one machine rounds alike; other backends and other seeds
are moved otherwise.

CORNERNET_TEST_NOISE_LOG=FILE lists the tests that ran a network, one a line: no other can change.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import sys
import zlib
from pathlib import Path

VARIABLE = "CORNERNET_TEST_NOISE"
LOG = "CORNERNET_TEST_NOISE_LOG"
SIZE = 1e-6
BACKENDS = {
    "cornernet_runtime.backends.onnxruntime": "OnnxRuntimeBackend",
    "cornernet_runtime.backends.openvino": "OpenVinoBackend",
    "cornernet_export.torch_backend.cpu": "TorchBackend",
}


def install():
    """Add the noise that the environment asks for to the backends of this process; return whether it asks for any."""
    seed = _seed()
    # In a process that a test started, sitecustomize has imported this module under another name.
    if seed is not None and not any(getattr(finder, "adds_noise", False) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder(seed))
        for name in BACKENDS.keys() & sys.modules.keys():
            _patch(sys.modules[name], seed)
    return seed is not None


def asked_for(outputs, images, name):
    """Return what the network ``name`` found in images [N, 3, H, W], with noise if the environment asks for any."""
    seed = _seed()
    return outputs if seed is None else perturbed(outputs, images, name, seed)


def noisy(call, name, seed):
    """Return ``call``, a backend's, with noise on the maps that it returns."""

    @functools.wraps(call)
    def moved(self, images):
        maps = call(self, images)
        return type(maps)(*perturbed([getattr(maps, field) for field in type(maps).__slots__], images, name, seed))

    return moved


def exact(backend):
    """Return the call of a backend's class without noise."""
    return getattr(backend.__call__, "__wrapped__", backend.__call__)


def perturbed(outputs, images, name, seed, size=SIZE):
    """Return copies of a network's outputs [N, C, h, w] with the noise of each image [3, H, W]."""
    import numpy as np  # noqa: PLC0415 - also loaded into processes that never run a network

    if os.environ.get(LOG):
        _record(os.environ.get("PYTEST_CURRENT_TEST", "unknown").rsplit(" (", 1)[0], Path(os.environ[LOG]))
    outputs = [np.array(output) for output in outputs]
    for index, image in enumerate(images):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode()), zlib.crc32(image.tobytes())])
        for output in outputs:
            largest = np.abs(output[index]).max(where=np.isfinite(output[index]), initial=0)
            output[index] += generator.uniform(-size, size, output[index].shape).astype(output.dtype) * largest
    return outputs


@functools.cache  # once in a process: some tests limit the size of files
def _record(test, log):
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{test}\n")


class Finder(importlib.abc.MetaPathFinder):
    """Adds noise to each backend once its module is imported."""

    adds_noise = True

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
                _patch(module, self._seed)

            spec.loader.exec_module = exec_module
        return spec


def _patch(module, seed):
    backend = getattr(module, BACKENDS[module.__name__])
    backend.__call__ = noisy(backend.__call__, module.__name__, seed)


def _seed():
    return int(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None

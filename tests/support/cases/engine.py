"""Engines on the double of TensorRT: opened, changed and compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cornernet_runtime.backends.tensorrt import TensorRTBackend
from cornernet_runtime.bundle.manifest import ENGINE_NAME, read_manifest, write_manifest
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

FRAME = np.random.default_rng(1).integers(0, 256, (126, 190, 3), dtype=np.uint8)


def change(folder, **changes):
    """Write another record of the engine into the side-car."""
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, engine=replace(manifest.engine, **changes)))


def open_backend(folder, **options):
    manifest = read_manifest(folder)
    return TensorRTBackend(folder / ENGINE_NAME, manifest.spec, manifest.engine, **options)


def noise(count, size):
    return np.random.default_rng(count).standard_normal((count, 3, *size), np.float32)


def copied(maps):
    return CornerMaps(*(getattr(maps, name).copy() for name in OUTPUT_NAMES))


def assert_equal_maps(found, expected):
    for name in OUTPUT_NAMES:
        want = getattr(expected, name)
        assert np.abs(getattr(found, name) - want).max() <= 1e-5 * np.abs(want).max(), name

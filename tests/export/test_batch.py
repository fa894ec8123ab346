"""Models that take several batches at fixed sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC

from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import ModelError
from cornernet_runtime.processing.maps import OUTPUT_NAMES


@pytest.mark.parametrize("size", [(63, 95), (95, 63)])
def test_a_batch_gives_what_its_pictures_give_alone(batch_bundle_path, size):
    images = np.random.default_rng(0).standard_normal((4, 3, *size), np.float32)
    backend = OnnxRuntimeBackend(batch_bundle_path / "model.onnx")
    together = backend(images)
    for index in range(4):
        alone = backend(images[index : index + 1])
        for name in OUTPUT_NAMES:
            want = getattr(alone, name)[0]
            assert np.abs(getattr(together, name)[index] - want).max() <= 1e-5 * np.abs(want).max()


def test_the_batch_is_free_in_the_file_and_its_bounds_are_in_the_metadata(batch_bundle_path):
    (image,) = onnx.load(batch_bundle_path / "model.onnx").graph.input
    assert [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]
    assert read_manifest(batch_bundle_path).spec.batch == (2, 3, 4)


def test_the_detector_runs_batches_up_to_the_largest(batch_bundle_path):
    with Detector.open(batch_bundle_path) as detector:
        assert detector.backend.max_batch == 4


def test_batches_are_verified(batch_bundle_path):
    checks = read_manifest(batch_bundle_path).verification.outputs
    assert {check.source for check in checks} == {"picture", "63x95", "95x63", "2x63x95", "2x95x63"}


def test_a_file_of_batch_1_whose_side_car_says_more_is_refused(bundle_path):
    spec = replace(SMALL_SPEC, batch=(1, 2, 4))
    with pytest.raises(ModelError, match="its metadata says batches of up to 4, its input takes 1 only"):
        OnnxRuntimeBackend(bundle_path / "model.onnx", spec)


@pytest.mark.parametrize("batch", [(0, 1, 1), (2, 1, 2), (1, 3, 2)])
def test_batches_that_cannot_be_are_refused(batch):
    with pytest.raises(RecordError, match="batch: expected 1 <= smallest <= usual <= largest"):
        replace(SMALL_SPEC, batch=batch)


def test_a_spec_from_before_batches_takes_one_picture():
    data = to_json(SMALL_SPEC)
    del data["batch"]
    assert from_json(ModelSpec, data).batch == (1, 1, 1)

"""Models that take several sizes, or any: held against a file of its own for each size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC, small_model
from noise.margins import assert_found, clear_detections

from cornernet_export.bundle_export import ExportRequest, _deployed_spec, export_bundle
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.cli import main
from cornernet_export.model.rewrite import fold_batch_norms
from cornernet_export.onnx_graph import build_onnx
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.cli.detect import main as detect_main
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import SizeError
from cornernet_runtime.pictures import write_picture
from cornernet_runtime.processing.maps import OUTPUT_NAMES

LARGEST = (767, 767)
SIZES = [(383, 511), (511, 767), (767, 511)]


@pytest.fixture(scope="module")
def dynamic(checkpoint_path, export_once):
    return export_once(checkpoint_path, sizes=(LARGEST,), dynamic=True)


@pytest.fixture(scope="module")
def several(checkpoint_path, export_once):
    return export_once(checkpoint_path, sizes=((63, 95), (95, 63)))


@pytest.fixture(scope="module")
def fixed(made_once):
    """The backends of files of one size each, by that."""
    folded = fold_batch_norms(small_model())

    def make(folder):
        for size in SIZES:
            model = build_onnx(folded, replace(SMALL_SPEC, input_size=size, largest_size=size))
            onnx.save(model, folder / f"{size[0]}x{size[1]}.onnx")

    folder = made_once("fixed", make, keep=True)
    return {size: OnnxRuntimeBackend(folder / f"{size[0]}x{size[1]}.onnx") for size in SIZES}


def noise(batch, size):
    return np.random.default_rng(0).standard_normal((batch, 3, *size), np.float32)


def assert_equal_maps(found, expected):
    for name in OUTPUT_NAMES:
        have, want = getattr(found, name), getattr(expected, name)
        assert have.shape == want.shape
        # The same convolutions; ONNX Runtime may tile them otherwise when it knows the sizes beforehand.
        assert np.abs(have - want).max() <= 1e-5 * np.abs(want).max(), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_dynamic_file_equals_a_fixed_one_of_the_same_size(dynamic, fixed, size, batch):
    images = noise(batch, size)
    with Detector.open(dynamic) as detector:
        found = detector.backend(images)
    for index in range(batch):
        assert_equal_maps(found[index], fixed[size](images[index : index + 1])[0])


@pytest.mark.parametrize("size", [(63, 95), (95, 63)])
def test_a_file_of_several_sizes_equals_a_dynamic_one_at_each(several, dynamic, size):
    with Detector.open(several) as one, Detector.open(dynamic) as other:
        assert_equal_maps(one.backend(noise(1, size)), other.backend(noise(1, size)))


@pytest.mark.parametrize("size", [(783, 767), (511, 783), (1023, 1023)])
def test_a_size_beyond_the_largest_is_refused(dynamic, size):
    with Detector.open(dynamic) as detector, pytest.raises(SizeError, match="at most 767x767; export it again"):
        detector.backend(noise(1, size))


@pytest.mark.parametrize("size", [(512, 511), (1, 15), (95, 96)])
def test_a_size_off_the_modulus_is_refused(dynamic, size):
    with Detector.open(dynamic) as detector, pytest.raises(SizeError, match="one less than a multiple of 16"):
        detector.backend(noise(1, size))


def test_a_file_of_several_sizes_takes_no_other(several):
    with Detector.open(several) as detector, pytest.raises(SizeError, match="exported for 63x95, 95x63"):
        detector.backend(noise(1, (63, 63)))


def test_free_dimensions_have_names_for_people(dynamic, several):
    def shapes(bundle):
        graph = onnx.load(bundle / "model.onnx").graph
        parts = (graph.input[0], graph.output[0])
        return [[side.dim_param or side.dim_value for side in part.type.tensor_type.shape.dim] for part in parts]

    assert shapes(dynamic) == [["batch", 3, "height", "width"], ["batch", 3, "map_height", "map_width"]]
    assert shapes(several) == [[1, 3, "height", "width"], [1, 3, "map_height", "map_width"]]


def test_the_metadata_says_what_the_file_takes(dynamic, several):
    free, listed = read_manifest(dynamic).spec, read_manifest(several).spec
    assert (free.dynamic, free.geometry, free.largest_size, free.input_size) == (True, "native", LARGEST, (63, 95))
    assert (listed.dynamic, listed.geometry, listed.largest_size) == (False, "fit", (95, 95))
    assert listed.sizes == ((63, 95), (95, 63))


@pytest.mark.slow
def test_a_dynamic_model_reaches_1023_by_default(checkpoint_path, tmp_path):
    request = ExportRequest(checkpoint_path, tmp_path / "bundle", dynamic=True)
    assert export_bundle(request).spec.largest_size == (1023, 1023)


def test_every_size_is_verified(dynamic, several):
    def sources(bundle):
        return {check.source for check in read_manifest(bundle).verification.outputs}

    assert sources(dynamic) == {"picture", "2x15x31", "767x767"}
    assert sources(several) == {"picture", "63x95", "95x63"}


def test_pooling_reaches_across_the_largest_map(dynamic):
    for function in onnx.load(dynamic / "model.onnx").functions:
        for direction in "vh":
            # The border of one of the corners is a Max too, under another name.
            names = (f"{direction}_max_", f"{direction}_out")
            doublings = [node for node in function.node if node.op_type == "Max" and node.name.startswith(names)]
            assert 768 // 4 <= 2 ** len(doublings) < 2 * 768 // 4 * 2


def test_a_frame_goes_in_at_its_own_size(dynamic):
    frame = np.random.default_rng(0).integers(0, 256, (100, 130, 3), dtype=np.uint8)
    with Detector.open(dynamic) as detector:
        maps, placement = detector.corner_maps(frame)
    assert (placement.input_size, placement.size) == ((111, 143), (100, 130))
    assert maps.tl_heat.shape == (3, 28, 36)


def test_frames_of_one_size_share_a_run(dynamic):
    frames = [np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8) for seed in range(3)]
    with Detector.open(dynamic, flip=True, scales=(0.5, 1)) as detector:
        together = detector.batch(frames)
        for frame, found in zip(frames, together, strict=True):
            # ONNX Runtime tiles a batch otherwise, which rounds otherwise and decides near ties.
            assert_found(clear_detections(detector, frame), found, least=10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "63x95", "--size", "63x95"], "expected distinct ones, got 63x95, 63x95"),
        (["--size", "64x95"], "nearest valid: 63 and 79"),
        (["--size", "64x95", "--dynamic"], "nearest valid: 63 and 79"),
    ],
)
def test_sizes_that_cannot_be_are_named(checkpoint_path, tmp_path, capsys, flags, message):
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [["--dynamic", "--size", "15x15"], ["--dynamic", "--size", "31x15"], ["--size", "15x31", "--size", "31x15"]],
)
def test_models_of_small_sizes_only(checkpoint_path, tmp_path, flags):
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), *flags]) == 0
    assert read_manifest(tmp_path / "bundle").verification.passed


@pytest.mark.slow
def test_a_checkpoint_that_was_dynamic_becomes_fixed_and_the_other_way_round(tmp_path):
    free = replace(SMALL_SPEC, largest_size=(127, 127), dynamic=True, geometry="native")
    save_checkpoint(tmp_path / "free.safetensors", small_model(), free)
    spec = export_bundle(ExportRequest(tmp_path / "free.safetensors", tmp_path / "fixed")).spec
    assert (spec.dynamic, spec.geometry, spec.largest_size, spec.sizes) == (False, "fit", (63, 95), ((63, 95),))


def test_a_frame_beyond_the_largest_size_is_scaled_down_and_said(dynamic, tmp_path, capsys):
    write_picture(tmp_path / "large.png", np.zeros((900, 400, 3), np.uint8))
    write_picture(tmp_path / "small.png", np.zeros((700, 400, 3), np.uint8))
    assert detect_main([str(dynamic), str(tmp_path / "*.png"), "--scales", "0.5,1"]) == 0
    assert (
        "1 picture exceeds 767x767, the largest size of this model, and had to be scaled down"
        in capsys.readouterr().err
    )


def test_a_model_trained_at_the_default_largest_size_can_be_dynamic():
    trained = replace(SMALL_SPEC, input_size=(1023, 1023), largest_size=(1023, 1023))
    spec = _deployed_spec(trained, ExportRequest(Path("any.safetensors"), Path("any"), dynamic=True))
    assert (spec.input_size, spec.largest_size, spec.dynamic) == ((1023, 1023), (1023, 1023), True)

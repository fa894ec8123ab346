"""What opens as a detector, and how all else is refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from cases.small import SMALL_SPEC
from onnx import TensorProto

from cornernet_runtime import CornerNetError, Detector
from cornernet_runtime.bundle.manifest import MANIFEST_NAME, ONNX_NAME
from cornernet_runtime.bundle.spec import spec_to_text
from cornernet_runtime.errors import BackendError, BundleError, ModelError, SizeError
from cornernet_runtime.processing.maps import OUTPUT_NAMES

METADATA = {"cornernet": spec_to_text(SMALL_SPEC)}
SEVERAL = replace(SMALL_SPEC, other_sizes=((63, 63),))
DYNAMIC = replace(SMALL_SPEC, largest_size=(63, 127), dynamic=True, geometry="native")
FREE_SIDES = ("image", (1, 3, "height", "width"))
FREE = ("image", ("batch", 3, "height", "width"))


def test_the_base_error_catches_all_that_open_raises(tmp_path):
    with pytest.raises(CornerNetError):
        Detector.open(tmp_path)


def test_a_path_that_is_not_there_does_not_exist(tmp_path):
    for name in ("missing", "missing.pth"):
        with pytest.raises(BundleError) as caught:
            Detector.open(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} does not exist; cornernet-export makes bundles from checkpoints"


def test_an_onnx_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=f"^{tmp_path / 'missing.onnx'}: no such file$"):
        Detector.open(tmp_path / "missing.onnx")


@pytest.mark.parametrize("name", ["model.safetensors", "model.engine", "bundle.json", "model"])
def test_a_file_of_another_kind_is_no_model(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        BundleError, match=rf"{name} is no bundle folder or \.onnx file; cornernet-export makes bundles"
    ):
        Detector.open(tmp_path / name)


@pytest.mark.parametrize("name", ["folder", "folder.onnx"])
def test_a_folder_without_bundle_json_is_no_bundle(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(BundleError, match=rf"{name}: no bundle\.json in it; cornernet-export makes bundles$"):
        Detector.open(tmp_path / name)


def test_a_bundle_whose_model_was_changed_is_refused(bundle_path, tmp_path):
    for name in (MANIFEST_NAME, ONNX_NAME):
        (tmp_path / name).write_bytes((bundle_path / name).read_bytes())
    with (tmp_path / ONNX_NAME).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match=f"^{tmp_path / ONNX_NAME}: its hash is not the one in bundle.json"):
        Detector.open(tmp_path)


def test_a_folder_closed_to_looking_is_a_bundle_error(open_folder, unprivileged):
    closed = open_folder / "closed"
    closed.mkdir(mode=0)
    with unprivileged():
        for path in (closed, closed / "bundle", closed / "model.onnx"):
            with pytest.raises((BundleError, ModelError), match=str(path)):
                Detector.open(path)


def test_an_unknown_backend_is_refused_with_those_there_are(bundle_path):
    with pytest.raises(
        BackendError, match=r"^no backend is called 'warp'; there are tensorrt, onnxruntime, openvino, openvino-bf16$"
    ):
        Detector.open(bundle_path, backend="warp")


def test_a_backend_can_be_named(bundle_path):
    with Detector.open(bundle_path, backend="onnxruntime") as detector:
        assert detector.backend.name == "onnxruntime"


def test_without_onnx_runtime_the_command_to_get_it_is_named(bundle_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        Detector.open(bundle_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 500], ids=["empty", "text", "zeros"])
def test_what_is_no_onnx_cannot_be_loaded(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        Detector.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_onnx_cannot_be_loaded(bundle_path, tmp_path, part):
    content = (bundle_path / ONNX_NAME).read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ModelError, match=f"^{path}: ONNX Runtime cannot load it: "):
        Detector.open(path)


# ONNX files that are not ours, or not what their metadata says.


def test_a_file_with_our_outputs_and_metadata_opens(tmp_path, write_onnx, small_outputs):
    path = write_onnx(tmp_path / "model.onnx", small_outputs, METADATA)
    with Detector.open(path) as detector:
        assert detector.spec == SMALL_SPEC


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["logits"], "outputs missing: tl_heat, br_heat, tl_embed, br_embed, tl_offset, br_offset (it has logits)"),
        (["tl_heat", "br_heat", "boxes"], "outputs missing: tl_embed, br_embed, tl_offset, br_offset (it has "),
        ([name for name in OUTPUT_NAMES if name != "br_embed"], "outputs missing: br_embed (it has "),
    ],
)
def test_a_foreign_onnx_is_refused_with_the_outputs_it_lacks(tmp_path, write_onnx, outputs, message):
    path = write_onnx(tmp_path / "foreign.onnx", {name: np.zeros((1, 10), np.float32) for name in outputs}, METADATA)
    with pytest.raises(ModelError) as caught:
        Detector.open(path)
    found = str(caught.value)
    assert found.startswith(f"{path}: not a CornerNet exported by cornernet-export: {message}")


def test_our_outputs_without_metadata_are_refused(tmp_path, write_onnx, small_outputs):
    path = write_onnx(tmp_path / "model.onnx", small_outputs, {"author": "someone"})
    with pytest.raises(ModelError, match=r"its metadata lacks the key 'cornernet'; export it with cornernet-export$"):
        Detector.open(path)


def test_metadata_of_a_newer_schema_are_refused(tmp_path, write_onnx, small_outputs):
    newer = METADATA["cornernet"].replace('"schema_version": 1', '"schema_version": 2')
    assert newer != METADATA["cornernet"]
    path = write_onnx(tmp_path / "model.onnx", small_outputs, {"cornernet": newer})
    with pytest.raises(ModelError, match="written with schema 2, this version reads up to 1; update your checkout"):
        Detector.open(path)


def swap(outputs, one, other):
    return {**outputs, one: outputs[other], other: outputs[one]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda maps: swap(maps, "tl_embed", "tl_offset"),
            "output tl_embed has shape [1, 2, 16, 24], its metadata says [batch, 1, 16, 24]",
        ),
        (
            lambda maps: swap(maps, "br_heat", "br_offset"),
            "output br_heat has shape [1, 2, 16, 24], its metadata says [batch, 3, 16, 24]",
        ),
        (
            lambda maps: {**maps, "tl_heat": np.zeros((1, 80, 16, 24), np.float32)},
            "output tl_heat has shape [1, 80, 16, 24], its metadata says [batch, 3, 16, 24]",
        ),
        (
            lambda maps: {**maps, "br_offset": np.zeros((1, 2, 24, 16), np.float32)},
            "output br_offset has shape [1, 2, 24, 16], its metadata says [batch, 2, 16, 24]",
        ),
        (
            lambda maps: {**maps, "tl_heat": np.zeros((1, 3, 384), np.float32)},
            "output tl_heat has shape [1, 3, 384], its metadata says [batch, 3, 16, 24]",
        ),
    ],
    ids=["embed and offset", "heat and offset", "classes", "rows and columns", "rank"],
)
def test_outputs_that_disagree_with_the_metadata_are_named(tmp_path, write_onnx, small_outputs, change, message):
    path = write_onnx(tmp_path / "model.onnx", change(small_outputs), METADATA)
    with pytest.raises(ModelError) as caught:
        Detector.open(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    "image", [("image", (1, 3, 63, 127)), ("image", (1, 3, 95, 63)), ("image", (1, 1, 63, 95)), ("x", (1, 3, 63, 95))]
)
def test_an_input_that_disagrees_with_the_metadata_is_named(tmp_path, write_onnx, small_outputs, image):
    path = write_onnx(tmp_path / "model.onnx", small_outputs, METADATA, image)
    with pytest.raises(ModelError) as caught:
        Detector.open(path)
    assert str(caught.value).startswith(f"{path}: expected one input image [batch, 3, 63, 95], got ")


def test_an_input_in_half_precision_is_refused(tmp_path, write_onnx, small_outputs):
    # What other tools make of our file when asked for FP16: names, shapes and metadata stay.
    path = write_onnx(tmp_path / "model.onnx", small_outputs, METADATA, element=TensorProto.FLOAT16)
    with pytest.raises(ModelError, match="float16"):
        Detector.open(path)


def test_outputs_in_half_precision_are_refused(tmp_path, write_onnx, small_outputs):
    half = {name: value.astype(np.float16) for name, value in small_outputs.items()}
    path = write_onnx(tmp_path / "model.onnx", half, METADATA)
    with pytest.raises(ModelError, match="float16"):
        Detector.open(path)


# Files of several or any sizes, and views.


def open_constant(folder, write_onnx, outputs, spec, image):
    return Detector.open(write_onnx(folder / "model.onnx", outputs, {"cornernet": spec_to_text(spec)}, image))


def test_a_file_of_several_sizes_opens_and_takes_one_picture_a_run(tmp_path, write_onnx, small_outputs):
    with open_constant(tmp_path, write_onnx, small_outputs, SEVERAL, FREE_SIDES) as detector:
        assert detector.spec == SEVERAL
        assert detector.backend.max_batch == 1


def test_a_dynamic_file_opens_and_takes_several_pictures_a_run(tmp_path, write_onnx, small_outputs):
    with open_constant(tmp_path, write_onnx, small_outputs, DYNAMIC, FREE) as detector:
        assert detector.spec == DYNAMIC
        assert detector.backend.max_batch > 1


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        (SMALL_SPEC, FREE),
        (SMALL_SPEC, FREE_SIDES),
        (SEVERAL, ("image", (1, 3, 63, 95))),
        (SEVERAL, ("image", (1, 3, 63, "width"))),
        (DYNAMIC, ("image", (1, 3, 63, 95))),
        (DYNAMIC, ("image", ("batch", 3, "height", 95))),
    ],
    ids=str,
)
def test_sides_that_are_free_in_the_file_or_in_its_metadata_only_are_refused(
    tmp_path, write_onnx, small_outputs, spec, image
):
    sides = "63, 95" if spec.fixed else "height, width"
    with pytest.raises(ModelError, match=rf": expected one input image \[batch, 3, {sides}\], got "):
        open_constant(tmp_path, write_onnx, small_outputs, spec, image)


@pytest.mark.parametrize(
    ("spec", "image", "taken", "refused"),
    [
        (SEVERAL, FREE_SIDES, [(63, 95), (63, 63)], [(95, 63), (47, 47), (63, 79)]),
        (DYNAMIC, FREE, [(63, 95), (15, 15), (63, 127)], [(63, 143), (79, 63), (64, 64), (0, 63)]),
    ],
    ids=["several", "dynamic"],
)
def test_the_network_runs_at_its_sizes_only(tmp_path, write_onnx, small_outputs, spec, image, taken, refused):
    with open_constant(tmp_path, write_onnx, small_outputs, spec, image) as detector:
        for size in taken:
            maps = detector.backend(np.zeros((1, 3, *size), np.float32))
            assert len(maps) == 1
        for size in refused:
            with pytest.raises(SizeError, match=r"^input "):
                detector.backend(np.zeros((1, 3, *size), np.float32))


@pytest.mark.parametrize("size", [(63, 63), (95, 63)])
def test_a_fixed_network_refuses_other_sizes_by_name(bundle_path, size):
    with Detector.open(bundle_path) as detector:
        with pytest.raises(SizeError) as caught:
            detector.backend(np.zeros((1, 3, *size), np.float32))
        assert str(caught.value) == f"input size {size[0]}x{size[1]}: this model was exported for 63x95"


def test_open_hands_flip_and_scales_to_the_detector(bundle_path):
    with Detector.open(bundle_path, flip=True, scales=(0.5, 1.0)) as detector:
        assert (detector.flip, detector.scales) == (True, (0.5, 1.0))
    with Detector.open(bundle_path) as detector:
        assert (detector.flip, detector.scales) == (False, (1.0,))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, 1.0), (float("nan"),)])
def test_scales_that_are_no_distinct_positive_numbers_do_not_open(bundle_path, scales):
    with pytest.raises(SizeError, match=r"^scales: expected distinct positive numbers, got "):
        Detector.open(bundle_path, scales=scales)

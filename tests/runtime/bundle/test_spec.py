from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.records import RecordError
from cornernet_runtime.bundle.spec import (
    SCHEMA_VERSION,
    DecodeParameters,
    ModelSpec,
    NmsParameters,
    Normalisation,
    check_schema,
    check_side,
    spec_from_text,
    spec_to_text,
)
from cornernet_runtime.errors import BundleError, ModelError, SizeError

SPEC = ModelSpec(
    name="night",
    class_names=("fox", "größe", "owl"),
    stride=4,
    modulus=128,
    input_size=(511, 767),
    largest_size=(767, 767),
    normalisation=Normalisation("rgb", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), (124.0, 116.0, 104.0)),
    decode=DecodeParameters(20, 100, 0.25, reject_empty=True),
    nms=NmsParameters("linear", 0.7, 0.4, 0.01, 0.0, 12),
    precision="int8",
    int8_target="tensorrt",
)
SEVERAL = replace(SPEC, other_sizes=((767, 511), (511, 511), (127, 767)))
DYNAMIC = replace(SPEC, dynamic=True, geometry="native")

# As the version before dynamic and several sizes wrote it.
BEFORE_SEVERAL_SIZES = """{"schema_version": 1, "spec": {"name": "CornerNet", "class_names": ["face"], "stride": 4,
"modulus": 128, "input_size": [511, 767], "largest_size": [511, 767], "geometry": "fit",
"normalisation": {"channel_order": "bgr", "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "pad": [0.0, 0.0, 0.0]},
"decode": {"top_k": 100, "candidates": 1000, "embedding_distance": 0.5, "reject_empty": false},
"nms": {"method": "gaussian", "sigma": 0.5, "iou_threshold": 0.5, "score_floor": 0.001, "pixel_extent": 1.0,
"max_detections": 100, "merge_exponent": 10.0}, "precision": "fp32"}}"""


def edited(path, value):
    """Return the text of SPEC with the value at ``path`` replaced; ``...`` removes it."""
    data = place = json.loads(spec_to_text(SPEC))
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize("spec", [SPEC, SEVERAL, DYNAMIC], ids=["one size", "several", "dynamic"])
def test_a_spec_comes_back_equal(spec):
    assert spec_from_text(spec_to_text(spec), "here") == spec


def test_a_spec_without_any_default_comes_back_equal():
    spec = replace(SPEC, other_sizes=((127, 255),), dynamic=True, batch=(1, 2, 3), geometry="native")
    plain = ModelSpec("a", ("b",), 1, 1, (1, 1), (1, 1))
    alike = [field.name for field in fields(ModelSpec) if getattr(spec, field.name) == getattr(plain, field.name)]
    assert alike == []
    assert spec_from_text(spec_to_text(spec), "here") == spec


def test_metadata_from_before_several_sizes_still_load():
    spec = spec_from_text(BEFORE_SEVERAL_SIZES, "old.onnx")
    assert (spec.input_size, spec.other_sizes, spec.largest_size) == ((511, 767), (), (511, 767))
    assert (spec.dynamic, spec.geometry, spec.fixed) == (False, "fit", True)
    assert spec.class_names == ("face",)


def test_sizes_come_back_as_tuples_that_can_be_compared():
    spec = spec_from_text(spec_to_text(SEVERAL), "here")
    assert spec.sizes == ((511, 767), (767, 511), (511, 511), (127, 767))


def test_what_is_not_said_is_as_in_the_original():
    # CornerNet (Law and Deng 2018): config/CornerNet.json, test/coco.py and external/nms.pyx of princeton-vl/CornerNet.
    assert DecodeParameters() == DecodeParameters(100, 1000, 0.5, reject_empty=False)
    assert NmsParameters() == NmsParameters("gaussian", 0.5, 0.5, 0.001, 1.0, 100, 10.0)


def test_the_text_carries_the_schema_version():
    assert json.loads(spec_to_text(SPEC))["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("stride", "size", "cells"),
    [
        (4, (511, 511), (128, 128)),
        (4, (511, 767), (128, 192)),
        (8, (511, 511), (64, 64)),
        (4, (127, 255), (32, 64)),
    ],
)
def test_map_size_is_a_cell_for_each_stride(stride, size, cells):
    assert replace(SPEC, stride=stride, input_size=size).map_size == cells


def test_a_newer_schema_is_refused_with_the_upgrade():
    text = edited(["schema_version"], SCHEMA_VERSION + 1)
    with pytest.raises(ModelError) as caught:
        spec_from_text(text, "m.onnx")
    assert str(caught.value) == (
        f"m.onnx: written with schema {SCHEMA_VERSION + 1}, this version reads up to {SCHEMA_VERSION}; "
        "update your checkout of cornernet-trt"
    )


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None, ..., [1]])
def test_what_is_no_schema_version_is_refused(version):
    with pytest.raises(ModelError, match=r"^m\.onnx: expected a schema_version of 1 to \d+, got "):
        spec_from_text(edited(["schema_version"], version), "m.onnx")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"schema_version"'])
def test_a_document_that_is_no_object_has_no_schema_version(text):
    with pytest.raises(ModelError, match="expected a schema_version of 1"):
        spec_from_text(text, "m.onnx")


def test_the_schema_error_is_of_the_kind_asked_for():
    with pytest.raises(BundleError, match="schema 99"):
        check_schema({"schema_version": 99}, "bundle.json", BundleError)


@pytest.mark.parametrize("text", ["", "{", "spec", '{"schema_version": 1,}'])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ModelError, match=r"^m\.onnx: its metadata is not JSON"):
        spec_from_text(text, "m.onnx")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema_version": ' + "1" * 5000 + "}"], ids=["deep", "long"])
def test_json_that_python_refuses_is_refused_as_any_other(text):
    with pytest.raises(ModelError, match=r"^m\.onnx: its metadata is not JSON"):
        spec_from_text(text, "m.onnx")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["spec"], ..., "spec: expected an object, got NoneType None"),
        (["spec", "stride"], ..., "spec.stride: missing"),
        (["spec", "stride"], 4.0, "spec.stride: expected int, got float 4.0"),
        (["spec", "colour"], 1, "spec.colour: unknown field"),
        (["spec", "decode", "top_k"], True, "spec.decode.top_k: expected int, got bool True"),
        (["spec", "nms", "sigma"], float("nan"), "spec.nms.sigma: expected a finite number, got float nan"),
        (["spec", "nms", "method"], "soft", "spec.nms.method: expected one of gaussian, linear, hard, got str 'soft'"),
        (["spec", "normalisation", "mean"], [0.5], "spec.normalisation.mean: expected 3 items, got list [0.5]"),
        (["spec", "class_names", 1], 7, "spec.class_names[1]: expected str, got int 7"),
        (["spec", "geometry"], "stretch", "spec.geometry: expected one of fit, native, got str 'stretch'"),
        (["spec", "precision"], "fp8", "spec.precision: expected one of fp32, fp16, int8, got str 'fp8'"),
        (["spec", "input_size"], [511, 512], "input side 512: this network needs one less than a multiple of 128"),
        (["spec", "dynamic"], 1, "spec.dynamic: expected bool, got int 1"),
        (["spec", "geometry"], "native", "geometry: native needs a model that is dynamic"),
        (["spec", "other_sizes"], [511, 511], "spec.other_sizes[0]: expected a list, got int 511"),
        (["spec", "other_sizes"], [[511]], "spec.other_sizes[0]: expected 2 items, got list [511]"),
        (["spec", "other_sizes"], [[511, 511.0]], "spec.other_sizes[0][1]: expected int, got float 511.0"),
        (["spec", "other_sizes"], [[511, 767]], "other_sizes: expected distinct sizes"),
        (["spec", "other_sizes"], [[511, 500]], "input side 500: this network needs one less than a multiple of 128"),
    ],
)
def test_a_field_that_does_not_hold_is_named(path, value, message):
    with pytest.raises(ModelError) as caught:
        spec_from_text(edited(path, value), "m.onnx")
    assert str(caught.value).startswith(f"m.onnx: its metadata does not hold: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ()}, "class_names: expected distinct, non-empty names"),
        ({"class_names": ("a", "a")}, "class_names: expected distinct, non-empty names"),
        ({"class_names": ("a", "")}, "class_names: expected distinct, non-empty names"),
        ({"stride": 0}, "modulus: expected a multiple of the stride 0, got 128"),
        ({"stride": 3}, "modulus: expected a multiple of the stride 3, got 128"),
        ({"modulus": 2}, "modulus: expected a multiple of the stride 4, got 2"),
        ({"input_size": (511, 895)}, r"input_size: expected at most \(767, 767\), got \(511, 895\)"),
        ({"input_size": (895, 511)}, r"input_size: expected at most \(767, 767\), got \(895, 511\)"),
        ({"other_sizes": ((511, 511), (511, 895))}, r"other_sizes: expected at most \(767, 767\), got \(511, 895\)"),
        ({"other_sizes": ((511, 767),)}, r"other_sizes: expected distinct sizes, got \(\(511, 767\), \(511, 767\)\)"),
        ({"other_sizes": ((511, 511), (511, 511))}, "other_sizes: expected distinct sizes"),
        ({"geometry": "native"}, "geometry: native needs a model that is dynamic$"),
        ({"geometry": "native", "other_sizes": ((511, 511),)}, "geometry: native needs a model that is dynamic$"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(RecordError, match=f"^{message}"):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    "change", [{"largest_size": (800, 767)}, {"other_sizes": ((511, 512),)}, {"input_size": (510, 767)}]
)
def test_every_size_of_a_spec_is_of_the_modulus(change):
    with pytest.raises(SizeError, match=r"^input side \d+: this network needs one less than a multiple of 128"):
        replace(SPEC, **change)


def test_a_size_and_the_same_one_turned_are_distinct():
    assert replace(SPEC, other_sizes=((767, 511),)).sizes == ((511, 767), (767, 511))


# Which sizes a model takes.


def accepted(spec, sides):
    """The sizes that a model takes, by trying all pairs of some sides."""
    taken = set()
    for size in itertools.product(sides, sides):
        try:
            spec.check_input_size(size)
        except SizeError:
            continue
        taken.add(size)
    return taken


NEAR_SIDES = [0, -1, 1, 126, 127, 128, 255, 383, 510, 511, 512, 639, 766, 767, 768, 895, 1023]


@pytest.mark.parametrize(("spec", "fixed"), [(SPEC, True), (SEVERAL, False), (DYNAMIC, False)])
def test_fixed_is_a_single_size(spec, fixed):
    assert spec.fixed is fixed


def test_a_fixed_model_takes_its_size_only():
    assert accepted(SPEC, NEAR_SIDES) == {(511, 767)}


def test_a_model_of_several_sizes_takes_these_only():
    assert accepted(SEVERAL, NEAR_SIDES) == {(511, 767), (767, 511), (511, 511), (127, 767)}


def test_a_dynamic_model_takes_each_size_of_the_modulus_up_to_the_largest():
    spec = replace(DYNAMIC, input_size=(255, 511), largest_size=(383, 767))
    assert accepted(spec, NEAR_SIDES) == set(itertools.product([127, 255, 383], [127, 255, 383, 511, 639, 767]))


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        (SPEC, (511, 511), "input size 511x511: this model was exported for 511x767"),
        (SPEC, (767, 511), "input size 767x511: this model was exported for 511x767"),
        (
            SEVERAL,
            (767, 767),
            "input size 767x767: this model was exported for 511x767, 767x511, 511x511, 127x767",
        ),
        (
            DYNAMIC,
            (511, 895),
            "input size 511x895: this model was exported for at most 767x767; export it again with a larger --size",
        ),
        (
            DYNAMIC,
            (512, 511),
            "input side 512: this network needs one less than a multiple of 128; nearest valid: 511 and 639",
        ),
    ],
)
def test_a_size_that_a_model_does_not_take_is_refused_with_those_it_does(spec, size, message):
    with pytest.raises(SizeError) as caught:
        spec.check_input_size(size)
    assert str(caught.value) == message


@pytest.mark.parametrize("pad", [(0.0, 0.0, 256.0), (-1.0, 0.0, 0.0), (0.0, 1e9, 0.0)])
def test_a_pad_beyond_the_grey_levels_is_refused(pad):
    with pytest.raises(RecordError, match=r"normalisation\.pad: "):
        Normalisation(pad=pad)


@pytest.mark.parametrize("std", [(0.0, 0.2, 0.2), (0.2, -0.1, 0.2)])
def test_a_standard_deviation_that_is_not_positive_is_refused(std):
    with pytest.raises(RecordError, match=r"normalisation\.std: expected positive numbers"):
        Normalisation(std=std)


@pytest.mark.parametrize("change", [{"top_k": 0}, {"candidates": 0}])
def test_decode_parameters_that_keep_nothing_are_refused(change):
    with pytest.raises(RecordError, match="decode: expected top_k and candidates of at least 1"):
        DecodeParameters(**change)


@pytest.mark.parametrize("change", [{"sigma": 0.0}, {"score_floor": 0.0}, {"max_detections": 0}])
def test_nms_parameters_without_an_end_are_refused(change):
    with pytest.raises(RecordError, match="nms: expected sigma and score_floor > 0, max_detections >= 1"):
        NmsParameters(**change)


def valid_sides(modulus, limit):
    """All sides up to ``limit`` that are one less than a multiple of ``modulus``, by trying each."""
    return [side for side in range(1, limit + 1) if (side + 1) % modulus == 0]


@settings(deadline=None, derandomize=True)
@given(side=st.integers(-300, 2000), modulus=st.integers(1, 300))
def test_a_side_passes_or_its_valid_neighbours_are_named(side, modulus):
    valid = valid_sides(modulus, 2700)
    if side in valid:
        check_side(side, modulus)
        return
    below = [near for near in valid if near < side][-1:]
    above = [near for near in valid if near > side][:1]
    with pytest.raises(SizeError) as caught:
        check_side(side, modulus)
    named = re.fullmatch(
        rf"input side {side}: this network needs one less than a multiple of {modulus}; nearest valid: (.*)",
        str(caught.value),
    )
    assert named is not None, str(caught.value)
    assert named[1] == " and ".join(map(str, below + above))


@pytest.mark.parametrize(("side", "nearest"), [(512, "511 and 639"), (510, "383 and 511"), (100, "127"), (1, "127")])
def test_nearest_valid_sides_of_cornernet_104(side, nearest):
    with pytest.raises(SizeError, match=f"nearest valid: {nearest}$"):
        check_side(side, 128)

"""Reading what TensorRT's inspector says, in the forms of TensorRT 10 and 11."""

from __future__ import annotations

import json

import pytest

from cornernet_export.engine.report import LayerReport, check_precision, read_report
from cornernet_runtime.errors import EngineError


def text(*layers, tensors="Bindings"):
    return json.dumps({"Layers": list(layers), tensors: ["image", "tl_heat"]})


def layer(kind, *outputs):
    return {"Name": "x", "LayerType": kind, "Inputs": [], "Outputs": list(outputs)}


def tensor(description, key="Format/Datatype"):
    return {"Name": "FP8 or not", "Location": "Device", "Dimensions": [1, 8, 16, 24], key: description}


@pytest.mark.parametrize("tensors", ["Bindings", "I/O Tensors"])
def test_layers_are_counted_by_kind_and_type(tensors):
    report = read_report(
        [
            text(
                layer("Reformat", tensor("Row major linear FP32")),
                layer("CaskConvolution", tensor("Channel major FP16 format where channel % 8 == 0"), tensor("Half")),
                layer("PluginV3", tensor("Two wide channel vectorized row major FP16 format")),
                tensors=tensors,
            ),
            text(layer("NoOp", tensor("Thirty-two wide channel vectorized row major Int8 format."))),
        ]
    )
    assert report == LayerReport(4, 1, 1, {"FP16": 3, "FP32": 1, "INT8": 1})


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("Row major linear FP32", "FP32"),
        ("Row major linear BF16 format", "BF16"),
        ("Float", "FP32"),
        ("Half", "FP16"),
        ("Row major Int8 format", "INT8"),
        ("Row major FP8 format", "FP8"),
        ("Row major INT64 format", "INT64"),
        ("N/A due to dynamic shapes", "UNKNOWN"),
        ("", "UNKNOWN"),
    ],
)
@pytest.mark.parametrize("key", ["Format/Datatype", "Datatype", "Format"])
def test_a_type_is_found_in_its_description(description, name, key):
    assert read_report([text(layer("x", tensor(description, key)))]).precisions == {name: 1}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Layers": 3}', '{"Layers": ["conv", "relu"]}', "no json"])
def test_another_form_is_refused(content):
    with pytest.raises(EngineError, match="TensorRT's inspector"):
        read_report([content])


@pytest.mark.parametrize(
    ("precision", "counts", "passes"),
    [
        ("fp32", {"FP32": 9, "INT32": 2}, True),
        ("fp32", {"FP32": 9, "FP16": 1}, False),
        ("fp32", {"FP16": 9}, False),
        ("fp16", {"FP32": 7, "FP16": 90}, True),
        ("fp16", {"FP32": 90}, False),
        ("int8", {"FP32": 9, "INT8": 1}, True),
        ("int8", {"FP32": 9, "FP16": 9}, False),
        ("fp32", {"UNKNOWN": 9}, False),
        ("fp32", {}, False),
    ],
)
def test_the_precision_asked_for_has_to_be_there(precision, counts, passes):
    report = LayerReport(10, 0, 0, counts)
    if passes:
        check_precision(report, precision)
    else:
        with pytest.raises(EngineError, match=f"was to compute in {precision}, but"):
            check_precision(report, precision)

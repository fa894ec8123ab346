"""The exported file: what is in it, and that three runtimes compute from it what PyTorch computes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import openvino
import pytest
import torch
from cases.small import FIRE, SMALL_SPEC, small_model
from onnx.reference import ReferenceEvaluator

from cornernet_export import bundle_export
from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.model import CornerNet, CornerNetConfig
from cornernet_export.model.rewrite import fold_batch_norms
from cornernet_export.onnx_graph import build_onnx
from cornernet_runtime.backends.onnx_file import METADATA_KEY
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.bundle.spec import spec_from_text
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.maps import OUTPUT_NAMES

SHAPES = {
    "tl_heat": (1, 3, 16, 24),
    "br_heat": (1, 3, 16, 24),
    "tl_embed": (1, 1, 16, 24),
    "br_embed": (1, 1, 16, 24),
    "tl_offset": (1, 2, 16, 24),
    "br_offset": (1, 2, 16, 24),
}
ONE_STACK = CornerNetConfig(name="one", classes=2, stacks=1, stem=(4, 8), dims=(8, 8), modules=(1, 1), pool_width=4)
ONE_STACK_SPEC = replace(
    SMALL_SPEC, name="one", class_names=("ant", "bee"), modulus=8, input_size=(23, 31), largest_size=(23, 31)
)


@pytest.fixture(scope="module")
def exported(bundle_path):
    return onnx.load(bundle_path / "model.onnx")


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((1, 3, *SMALL_SPEC.input_size)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(image):
    with torch.inference_mode():
        maps = small_model()(torch.from_numpy(image))
    return {name: tensor.numpy() for name, tensor in maps._asdict().items()}


def shape_of(value):
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def assert_close_to_pytorch(found, expected):
    """The project's bar: 1e-4 of the largest value of an output (the same sums in another order give about 1e-6)."""
    assert set(found) == set(expected)
    for name, want in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == want.shape
        assert np.abs(found[name] - want).max() <= 1e-4 * np.abs(want).max(), name


# What is in the file.


def test_graph_has_convolutions_activations_additions_upsampling_and_one_node_a_corner(exported):
    counts = operators(exported)
    assert set(counts) == {"Conv", "Relu", "Add", "Resize", "TopLeftPool", "BottomRightPool"}
    assert (counts["TopLeftPool"], counts["BottomRightPool"]) == (1, 1)
    assert counts["Resize"] == 2 * 2  # one a depth in each of two hourglasses


def test_heads_of_the_first_stack_are_left_out(exported):
    """Every convolution of the network but the 12 + 2 x 5 of the first stack's two heads."""
    convolutions = {
        name: module for name, module in small_model().named_modules() if isinstance(module, torch.nn.Conv2d)
    }
    kept = [name for name in convolutions if not name.startswith(("top_left.0.", "bottom_right.0."))]
    assert len(kept) < len(convolutions)
    assert operators(exported)["Conv"] == len(kept)
    assert not [
        item.name for item in exported.graph.initializer if item.name.startswith(("top_left.0", "bottom_right.0"))
    ]


def test_pool_nodes_carry_the_attributes_that_tensorrt_looks_for(exported):
    nodes = [node for node in exported.graph.node if node.domain == "cornernet"]
    assert sorted(node.op_type for node in nodes) == ["BottomRightPool", "TopLeftPool"]
    for node in nodes:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert attributes == {"plugin_namespace": b"cornernet", "plugin_version": b"1"}


def test_every_pool_node_has_a_function_that_declares_its_attributes(exported):
    functions = {(function.domain, function.name): function for function in exported.functions}
    assert set(functions) == {("cornernet", "TopLeftPool"), ("cornernet", "BottomRightPool")}
    for function in functions.values():
        assert sorted(function.attribute) == ["plugin_namespace", "plugin_version"]
        assert (len(function.input), len(function.output)) == (2, 1)


def test_function_body_reaches_across_the_longer_side_of_the_maps(exported):
    for function in exported.functions:
        shifts = [
            abs(attribute.i)
            for node in function.node
            if node.op_type == "Constant" and any("shift" in name for name in node.output)
            for attribute in node.attribute
        ]
        assert sorted(shifts) == sorted(2 * [1, 2, 4, 8, 16])  # 32 >= 24 columns, twice: down and across


def test_input_is_named_and_shaped(exported):
    assert [(item.name, shape_of(item), item.type.tensor_type.elem_type) for item in exported.graph.input] == [
        ("image", (1, 3, 63, 95), onnx.TensorProto.FLOAT)
    ]


def test_six_outputs_are_named_shaped_and_ordered(exported):
    assert {item.name: shape_of(item) for item in exported.graph.output} == SHAPES
    assert tuple(item.name for item in exported.graph.output) == OUTPUT_NAMES
    assert {item.type.tensor_type.elem_type for item in exported.graph.output} == {onnx.TensorProto.FLOAT}


def test_opset_is_at_least_18(exported):
    versions = {item.domain: item.version for item in exported.opset_import}
    assert versions[""] >= 18
    assert versions["cornernet"] == 1
    assert all(item.version == versions[""] for body in exported.functions for item in body.opset_import)


def test_full_check_passes(exported):
    onnx.checker.check_model(exported, full_check=True)


def test_metadata_is_the_spec_and_nothing_else(exported):
    properties = {item.key: item.value for item in exported.metadata_props}
    assert set(properties) == {METADATA_KEY}
    assert spec_from_text(properties[METADATA_KEY], "model.onnx") == SMALL_SPEC


def test_producer_is_named(exported):
    assert exported.producer_name == "cornernet-trt"


def test_nodes_carry_no_stack_traces(exported):
    nodes = [*exported.graph.node, *(node for body in exported.functions for node in body.node)]
    assert not [node.name for node in nodes if node.metadata_props or node.doc_string]


def test_file_names_no_path_of_this_machine(exported):
    words = onnx.ModelProto()
    words.CopyFrom(exported)
    for tensor in words.graph.initializer:
        tensor.ClearField("raw_data")  # among random bytes are short words of any kind
    content = words.SerializeToString()
    places = [Path.cwd(), Path(__file__).parents[2], Path(sys.prefix), Path(torch.__file__).parent, Path.home()]
    # A home of "/" says nothing.
    texts = [*(str(place) for place in places if place != Path("/")), "site-packages", ".py", 'File "']
    assert [text for text in texts if text.encode() in content] == []


def test_node_names_are_distinct(exported):
    """TensorRT reports layers, and inspectors draw nodes, by name."""
    for nodes in (exported.graph.node, *(body.node for body in exported.functions)):
        names = [node.name for node in nodes if node.name]
        assert len(set(names)) == len(names)


# What runtimes compute from it.


def test_onnx_runtime_equals_pytorch(exported, image, expected):
    session = ort.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_close_to_pytorch(dict(zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, {"image": image}), strict=True)), expected)


def test_reference_evaluator_equals_pytorch(exported, image, expected):
    found = ReferenceEvaluator(exported).run(list(OUTPUT_NAMES), {"image": image})
    assert_close_to_pytorch(dict(zip(OUTPUT_NAMES, found, strict=True)), expected)


def test_inlined_file_has_standard_operators_only(exported):
    inlined = onnx.inliner.inline_local_functions(exported)
    assert {node.domain for node in inlined.graph.node} == {""}
    assert not inlined.functions
    onnx.checker.check_model(inlined, full_check=True)


def test_openvino_equals_pytorch_once_inlined(exported, image, expected, tmp_path):
    onnx.save(onnx.inliner.inline_local_functions(exported), tmp_path / "inlined.onnx")
    core = openvino.Core()
    # Processors with BF16 would otherwise compute in it.
    compiled = core.compile_model(tmp_path / "inlined.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"image": image})
    assert_close_to_pytorch({name: results[name] for name in OUTPUT_NAMES}, expected)


def test_batch_norm_statistics_are_in_the_convolutions(exported, image, expected):
    """The comparison with PyTorch above only says something while the statistics matter to the result."""
    assert "BatchNormalization" not in operators(exported)
    plain = small_model()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    with torch.inference_mode():
        without = plain(torch.from_numpy(image)).tl_heat.numpy()
    tolerance = 1e-4 * np.abs(expected["tl_heat"]).max()
    assert np.abs(without - expected["tl_heat"]).max() > 100 * tolerance


# Other networks.


@pytest.mark.slow
def test_network_of_one_stack():
    torch.manual_seed(0)
    model = CornerNet(ONE_STACK).eval()
    exported = build_onnx(model, ONE_STACK_SPEC)
    assert set(operators(exported)) == {"Conv", "Relu", "Add", "Resize", "TopLeftPool", "BottomRightPool"}
    image = torch.randn(1, 3, 23, 31)
    with torch.inference_mode():
        expected = {name: tensor.numpy() for name, tensor in model(image)._asdict().items()}
    session = ort.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(OUTPUT_NAMES, {"image": image.numpy()})
    assert_close_to_pytorch(dict(zip(OUTPUT_NAMES, found, strict=True)), expected)


@pytest.mark.slow
def test_large_network_keeps_its_weights_in_a_file_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_export, "EXTERNAL_DATA_LIMIT", 0)
    torch.manual_seed(0)
    # Wide enough for tensors above 1 KB: smaller ones stay in the graph.
    model = CornerNet(replace(ONE_STACK, stem=(4, 16), dims=(16, 16)))
    save_checkpoint(tmp_path / "one.safetensors", model, ONE_STACK_SPEC)
    bundle = tmp_path / "bundle"
    manifest = export_bundle(ExportRequest(tmp_path / "one.safetensors", bundle))
    files = {path.name: path.stat().st_size for path in bundle.iterdir()}
    assert set(files) == {"model.onnx", "model.onnx.data", "bundle.json"}
    weights = sum(tensor.numel() * 4 for tensor in model.parameters())
    assert files["model.onnx.data"] > weights / 2
    assert set(manifest.files) == {"model.onnx", "model.onnx.data"}
    assert read_manifest(bundle) == manifest
    with Detector.open(bundle) as detector:
        assert detector.spec == ONE_STACK_SPEC


def test_bundle_and_file_say_the_same(bundle_path, exported):
    manifest = json.loads((bundle_path / "bundle.json").read_text(encoding="utf-8"))
    (metadata,) = exported.metadata_props
    assert json.loads(metadata.value)["spec"] == manifest["spec"]


@pytest.mark.slow
def test_graph_of_fire_units_has_concatenations_and_deconvolutions_too():
    spec = replace(SMALL_SPEC, modulus=FIRE.modulus, stride=FIRE.stride, input_size=(63, 63), largest_size=(63, 63))
    counts = operators(build_onnx(fold_batch_norms(CornerNet(FIRE).eval()), spec))
    assert set(counts) == {
        "Conv", "ConvTranspose", "Relu", "Add", "Concat", "TopLeftPool", "BottomRightPool",
    }  # fmt: skip
    assert (counts["TopLeftPool"], counts["BottomRightPool"]) == (1, 1)
    assert counts["ConvTranspose"] == FIRE.stacks * (len(FIRE.dims) - 1)

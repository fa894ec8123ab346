"""INT8 graphs: where the pairs of Q and DQ stand, what the constants hold, and what ONNX Runtime makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from cases.small import FIRE, SMALL, SMALL_SPEC
from onnx import TensorProto, numpy_helper

from cornernet_export.int8.groups import group_of, node_groups
from cornernet_export.int8.quantise import LARGEST_BIAS, plan_pairs, quantise
from cornernet_export.int8.ranges import collect_ranges
from cornernet_export.model import CornerNet
from cornernet_export.model.rewrite import fold_batch_norms
from cornernet_export.onnx_graph import build_onnx
from cornernet_runtime.errors import ModelError
from cornernet_runtime.processing.maps import OUTPUT_NAMES

TARGETS = ("cpu", "tensorrt")
OUTPUTS = len(OUTPUT_NAMES)


@pytest.fixture(scope="module")
def model(bundle_path):
    return onnx.load(bundle_path / "model.onnx")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    return [rng.standard_normal((1, 3, 63, 95), np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def ranges(model, images):
    return ranges_of(model, images)


def ranges_of(model, images):
    names = {name for target in TARGETS for name in plan_pairs(model.graph, target).readers}
    return collect_ranges(model, sorted(names), images)


def constants(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def convolutions(model):
    """Return the convolutions whose weights come from integers, and those whose weights are float."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    return [node for node in nodes if node.input[1] in dequantised], [
        node for node in nodes if node.input[1] not in dequantised
    ]


def run(model, image):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, {"image": image}), strict=True))


def operators_run(model, folder):
    """Return the operators of the graph that ONNX Runtime makes of a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file suits this machine only
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


# What is quantised.


@pytest.mark.parametrize("target", TARGETS)
def test_all_convolutions_but_the_last_have_integer_weights(model, ranges, target):
    integers, floats = convolutions(quantise(model, ranges, target))
    assert len(integers) == sum(node.op_type == "Conv" for node in model.graph.node) - OUTPUTS
    assert sorted(node.output[0] for node in floats) == sorted(OUTPUT_NAMES)


def test_onnx_runtime_computes_them_in_integers(model, ranges, tmp_path):
    quantised = quantise(model, ranges, "cpu")
    run_by = operators_run(quantised, tmp_path)
    assert run_by.count("QLinearConv") == len(convolutions(quantised)[0])
    # Each addition but those inside the two pools.
    assert run_by.count("QLinearAdd") == sum(node.op_type == "Add" for node in model.graph.node)
    assert run_by.count("Relu") == 0


@pytest.mark.parametrize("target", TARGETS)
def test_pools_stay_nodes_of_our_domain_in_float(model, ranges, target):
    quantised = quantise(model, ranges, target)
    kinds = {name: node.op_type for node in quantised.graph.node for name in node.output}
    pools = [node for node in quantised.graph.node if node.domain == "cornernet"]
    assert [node.op_type for node in pools] == ["TopLeftPool", "BottomRightPool"]
    assert {kinds[name] for node in pools for name in node.input} <= {"DequantizeLinear", "Relu"}
    assert [function.name for function in quantised.functions] == ["TopLeftPool", "BottomRightPool"]
    assert {(item.domain, item.version) for item in quantised.opset_import} == {
        (item.domain, item.version) for item in model.opset_import
    }


def test_tensorrt_gets_no_pair_behind_a_convolution_and_no_integer_bias(model, ranges):
    quantised = quantise(model, ranges, "tensorrt")
    made_by = {name: node.op_type for node in quantised.graph.node for name in node.output}
    additions = [node for node in quantised.graph.node if node.op_type == "Add"]
    # Of the two branches of a residual one is what the convolution before gives, to be fused with the addition.
    fused = [sorted(made_by[name] for name in node.input) for node in additions]
    assert ["Conv", "DequantizeLinear"] in fused
    assert all(kinds != ["Conv", "Conv"] for kinds in fused)
    assert TensorProto.INT32 not in {item.data_type for item in quantised.graph.initializer}


@pytest.mark.parametrize(("target", "kind"), [("cpu", TensorProto.UINT8), ("tensorrt", TensorProto.INT8)])
def test_activations_are_unsigned_for_a_cpu_and_symmetric_for_tensorrt(model, ranges, target, kind):
    quantised = quantise(model, ranges, target)
    values = {item.name: item for item in quantised.graph.initializer}
    zeros = [values[node.input[2]] for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert {item.data_type for item in zeros} == {kind}
    if target == "tensorrt":
        assert all(numpy_helper.to_array(item) == 0 for item in zeros)


@pytest.mark.parametrize("target", TARGETS)
def test_the_steps_of_an_activation_cover_its_range_and_zero_exactly(model, ranges, target):
    values = constants(quantise(model, ranges, target))
    for name, (low, high) in ranges.items():
        if f"{name}.scale" not in values:
            continue
        scale, zero = float(values[f"{name}.scale"]), int(values[f"{name}.zero"])
        first, last = (0, 255) if target == "cpu" else (-127, 127)
        assert (first - zero) * scale <= low + scale
        assert (last - zero) * scale >= high - scale
        assert (last - first) * scale <= 2.01 * max(-low, high)


@pytest.mark.parametrize("target", TARGETS)
def test_an_addition_of_a_constant_stays_in_float_and_gives_the_same(model, images, target):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    convolution = next(node for node in changed.graph.node if node.op_type == "Conv")
    readers = [node for node in changed.graph.node if convolution.output[0] in node.input]
    place = list(changed.graph.node).index(convolution) + 1
    shift = numpy_helper.from_array(np.full((1, 1, 1, 1), 0.25, np.float32), "shift")
    changed.graph.initializer.append(shift)
    shifted = onnx.helper.make_node("Add", [convolution.output[0], "shift"], ["shifted"], name="shifted")
    for reader in readers:
        reader.input[:] = ["shifted" if name == convolution.output[0] else name for name in reader.input]
    changed.graph.node.insert(place, shifted)
    ranges = ranges_of(changed, images)
    quantised = quantise(changed, ranges, target)
    (addition,) = (node for node in quantised.graph.node if node.name == "shifted")
    assert addition.input[1] == "shift"
    exact, found = run(changed, images[0]), run(quantised, images[0])
    for name in OUTPUT_NAMES:
        assert np.abs(found[name] - exact[name]).max() < 0.3 * np.abs(exact[name]).max()


# Weights and biases.


@pytest.mark.parametrize(("target", "largest"), [("cpu", 64), ("tensorrt", 127)])
def test_every_channel_of_the_weights_uses_its_own_steps_to_the_full(model, ranges, target, largest):
    quantised, exact = quantise(model, ranges, target), constants(model)
    values = constants(quantised)
    for node in convolutions(quantised)[0]:
        (original,) = (one for one in model.graph.node if one.name == node.name)
        weight = exact[original.input[1]]
        steps, scale = values[f"{node.name}.weight.int"], values[f"{node.name}.weight.scale"]
        assert steps.dtype == np.int8
        assert scale.shape == (weight.shape[0],)
        assert np.abs(steps).reshape(len(steps), -1).max(1).tolist() == [largest] * len(steps)
        error = np.abs(steps * scale.reshape(-1, 1, 1, 1) - weight)
        assert (error <= 0.501 * scale.reshape(-1, 1, 1, 1)).all()


def test_weights_for_a_cpu_never_saturate_sixteen_bits(model, ranges):
    values = constants(quantise(model, ranges, "cpu"))
    largest = max(np.abs(value.astype(int)).max() for name, value in values.items() if name.endswith("weight.int"))
    assert 2 * 255 * largest <= 32767  # two products, as processors without VNNI add them


def test_biases_are_in_steps_of_input_times_weight(model, ranges):
    quantised, exact = quantise(model, ranges, "cpu"), constants(model)
    values = constants(quantised)
    node = next(node for node in convolutions(quantised)[0] if len(node.input) > 2)
    (original,) = (one for one in model.graph.node if one.name == node.name)
    unit = values[f"{original.input[0]}.scale"] * values[f"{node.name}.weight.scale"]
    np.testing.assert_allclose(values[f"{node.name}.bias.int"] * unit, exact[original.input[2]], atol=unit.max())


def test_a_bias_that_dwarfs_its_weights_does_not_overflow(model, ranges):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    node = changed.graph.node[0]
    weights = {item.name: item for item in changed.graph.initializer}
    weight, bias = (numpy_helper.to_array(weights[name]).copy() for name in node.input[1:])
    weight[0], bias[0] = 1e-12, 3.0
    for name, value in zip(node.input[1:], (weight, bias), strict=True):
        weights[name].CopyFrom(numpy_helper.from_array(value, name))
    values = constants(quantise(changed, ranges, "cpu"))
    assert 0 < values[f"{node.name}.bias.int"][0] <= LARGEST_BIAS
    unit = values["image.scale"] * values[f"{node.name}.weight.scale"][0]
    assert values[f"{node.name}.bias.int"][0] * unit == pytest.approx(3, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("config", [SMALL, FIRE], ids=["residual", "fire"])
def test_a_fresh_network_without_biases_is_quantised_too(config, target, images):
    torch.manual_seed(0)
    fresh = build_onnx(fold_batch_norms(CornerNet(replace(config, stacks=1)).eval()), SMALL_SPEC)
    ranges = ranges_of(fresh, images)
    expected, found = run(fresh, images[0]), run(quantise(fresh, ranges, target), images[0])
    for name in OUTPUT_NAMES:
        assert np.abs(found[name] - expected[name]).max() < 0.1 * np.abs(expected[name]).max(), name


# What comes out.


@pytest.mark.parametrize("target", TARGETS)
def test_outputs_are_those_of_float32_but_for_eight_bits(model, ranges, images, target):
    expected, found = run(model, images[0]), run(quantise(model, ranges, target), images[0])
    for name in OUTPUT_NAMES:
        scatter = np.square(found[name] - expected[name]).mean() / expected[name].var()
        assert 0 < scatter < 0.05, name


@pytest.mark.parametrize("target", TARGETS)
def test_with_every_group_in_float_the_outputs_are_equal(model, ranges, images, target):
    nodes = [name for group in node_groups(model.graph).values() for name in group]
    quantised = quantise(model, ranges, target, nodes)
    assert "QuantizeLinear" not in {node.op_type for node in quantised.graph.node}
    expected, found = run(model, images[0]), run(quantised, images[0])
    for name in OUTPUT_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_each_group_alone_in_float_gives_a_model_that_runs(model, ranges, images, target):
    expected = run(model, images[0])
    for group, nodes in node_groups(model.graph).items():
        quantised = quantise(model, ranges, target, nodes)
        floats = {node.name for node in convolutions(quantised)[1]}
        assert floats >= {node.name for node in model.graph.node if node.op_type == "Conv" and node.name in nodes}
        found = run(quantised, images[0])
        assert all(np.square(found[name] - expected[name]).mean() < 0.05 * expected[name].var() for name in found), (
            group
        )


def test_the_model_given_is_left_as_it_is(model, ranges):
    before = model.SerializeToString(deterministic=True)
    quantise(model, ranges, "cpu")
    assert model.SerializeToString(deterministic=True) == before


# Groups.


def test_groups_hold_every_node_once_and_are_named_after_the_parts(model):
    groups = node_groups(model.graph)
    names = [name for nodes in groups.values() for name in nodes]
    assert sorted(names) == sorted(node.name for node in model.graph.node)
    assert list(groups) == [
        "stem",
        "hourglass 1, level 1",
        "hourglass 1, level 2",
        "hourglass 1, level 3",
        "joints of hourglasses",
        "hourglass 2, level 1",
        "hourglass 2, level 2",
        "hourglass 2, level 3",
        "corner pooling",
        "heat",
        "embedding",
        "offset",
    ]


@pytest.mark.parametrize(
    ("weight", "group"),
    [
        ("stem.1.first.0.weight", "stem"),
        ("hourglasses.0.inner.inner.0.first.0.weight", "hourglass 1, level 3"),
        ("hourglasses.1.up.weight", "hourglass 2, level 1"),
        ("merge_outputs.0.0.weight", "joints of hourglasses"),
        ("outputs.1.0.weight", "joints of hourglasses"),
        ("bottom_right.1.after_pool.0.weight", "corner pooling"),
        ("top_left.0.embed.2.weight", "embedding"),
    ],
)
def test_a_weight_tells_its_group(weight, group):
    assert group_of(weight) == group


def test_a_weight_of_another_network_is_refused():
    with pytest.raises(ModelError, match="layer4"):
        group_of("layer4.0.weight")

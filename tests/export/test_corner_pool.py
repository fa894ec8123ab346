"""Corner pooling held against its definition in plain loops: the eager reference, and the body in an ONNX file."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cornernet_export.corner_pool import OPSET, pool_function
from cornernet_export.model.corner_pool import PLUGIN_NAMESPACE, Corner, CornerPool, corner_pool

SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 64, 128)
BOTH = pytest.mark.parametrize("corner", Corner, ids=lambda corner: corner.name.lower())
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16])
ELEMENTS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


def loop_maximum(values):
    """Python's max, but NaN wherever one is among the values."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def loop_pool(vertical, horizontal, corner):
    """Equations 1 to 4 of the paper for [N, C, H, W], one cell at a time; the sum is the tensors' own addition."""
    down, across = torch.empty_like(vertical), torch.empty_like(horizontal)
    batch, channels, height, width = vertical.shape
    for n in range(batch):
        for c in range(channels):
            column_wise, row_wise = vertical[n, c].tolist(), horizontal[n, c].tolist()
            for y in range(height):
                for x in range(width):
                    rows = range(y, height) if corner is Corner.TOP_LEFT else range(y + 1)
                    columns = range(x, width) if corner is Corner.TOP_LEFT else range(x + 1)
                    down[n, c, y, x] = loop_maximum([column_wise[j][x] for j in rows])
                    across[n, c, y, x] = loop_maximum([row_wise[y][i] for i in columns])
    return down + across


def assert_same(found, expected):
    """Exactly equal, NaN in the same places; pooling only selects, and the one addition rounds the same way."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def random_map(rng, shape, dtype=np.float32):
    return torch.from_numpy(rng.standard_normal(shape).astype(dtype))


def plane(rows):
    return torch.tensor(rows, dtype=torch.float32)[None, None]


# The eager reference.


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 4), (7, 16), (17, 23)], ids=str)
def test_eager_equals_the_definition(corner, size):
    rng = np.random.default_rng(0)
    vertical, horizontal = random_map(rng, (2, 3, *size)), random_map(rng, (2, 3, *size))
    assert_same(corner_pool(vertical, horizontal, corner), loop_pool(vertical, horizontal, corner))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), corner=st.sampled_from(Corner), height=st.integers(1, 17), width=st.integers(1, 23))
def test_eager_equals_the_definition_with_ties_nan_and_infinities(data, corner, height, width):
    # Few distinct values make ties the rule.
    values = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 1.0, 3.0, math.inf, math.nan])
    cells = st.lists(values, min_size=2 * height * width, max_size=2 * height * width)
    vertical, horizontal = torch.tensor(data.draw(cells)).reshape(2, 1, 1, height, width)
    assert_same(corner_pool(vertical, horizontal, corner), loop_pool(vertical, horizontal, corner))


@BOTH
def test_maxima_of_negative_maps_are_negative(corner):
    """Padding with zeros instead of taking the maximum of what is there would give zero."""
    rng = np.random.default_rng(1)
    vertical, horizontal = (-random_map(rng, (1, 2, 5, 6)).abs() - 1 for _ in range(2))
    pooled = corner_pool(vertical, horizontal, corner)
    assert_same(pooled, loop_pool(vertical, horizontal, corner))
    assert pooled.max() <= -2


# One map per direction: zero but for one cell, so that only one of the four directions spreads it.

ONE_CELL = [[0, 0, 0, 0], [0, 0, 7, 0], [0, 0, 0, 0]]
NOTHING = [[0] * 4] * 3


@pytest.mark.parametrize(
    ("corner", "vertical", "horizontal", "expected"),
    [
        (Corner.TOP_LEFT, ONE_CELL, NOTHING, [[0, 0, 7, 0], [0, 0, 7, 0], [0, 0, 0, 0]]),
        (Corner.TOP_LEFT, NOTHING, ONE_CELL, [[0, 0, 0, 0], [7, 7, 7, 0], [0, 0, 0, 0]]),
        (Corner.BOTTOM_RIGHT, ONE_CELL, NOTHING, [[0, 0, 0, 0], [0, 0, 7, 0], [0, 0, 7, 0]]),
        (Corner.BOTTOM_RIGHT, NOTHING, ONE_CELL, [[0, 0, 0, 0], [0, 0, 7, 7], [0, 0, 0, 0]]),
    ],
    ids=["top_left_looks_down", "top_left_looks_right", "bottom_right_looks_up", "bottom_right_looks_left"],
)
def test_direction(corner, vertical, horizontal, expected):
    assert_same(corner_pool(plane(vertical), plane(horizontal), corner), plane(expected))


def test_values_worked_out_by_hand():
    vertical = plane([[2, 1, 3, 0], [5, 4, 1, 1]])
    horizontal = plane([[3, 0, 1, 2], [0, 5, 2, 4]])
    top_left = plane([[5 + 3, 4 + 2, 3 + 2, 1 + 2], [5 + 5, 4 + 5, 1 + 4, 1 + 4]])
    bottom_right = plane([[2 + 3, 1 + 3, 3 + 3, 0 + 3], [5 + 0, 4 + 5, 3 + 5, 1 + 5]])
    assert_same(corner_pool(vertical, horizontal, Corner.TOP_LEFT), top_left)
    assert_same(corner_pool(vertical, horizontal, Corner.BOTTOM_RIGHT), bottom_right)


@BOTH
def test_nan_spreads_along_its_direction_only(corner):
    vertical = torch.zeros(1, 1, 3, 4)
    vertical[0, 0, 1, 2] = math.nan
    pooled = corner_pool(vertical, torch.zeros(1, 1, 3, 4), corner)[0, 0]
    rows = {Corner.TOP_LEFT: [0, 1], Corner.BOTTOM_RIGHT: [1, 2]}[corner]
    assert pooled.isnan().nonzero().tolist() == [[row, 2] for row in rows]


@BOTH
def test_corners_mirror_each_other(corner):
    rng = np.random.default_rng(2)
    vertical, horizontal = random_map(rng, (1, 2, 6, 9)), random_map(rng, (1, 2, 6, 9))
    other = next(each for each in Corner if each is not corner)
    mirrored = corner_pool(vertical.flip(2, 3), horizontal.flip(2, 3), other).flip(2, 3)
    assert_same(corner_pool(vertical, horizontal, corner), mirrored)


@BOTH
def test_layer_in_eager_mode_is_the_function(corner):
    rng = np.random.default_rng(3)
    vertical, horizontal = random_map(rng, (1, 2, 4, 5)), random_map(rng, (1, 2, 4, 5))
    assert_same(CornerPool(corner)(vertical, horizontal), corner_pool(vertical, horizontal, corner))


@BOTH
def test_gradient_equals_finite_differences(corner):
    rng = np.random.default_rng(4)
    # Distinct values a whole step apart: at a tie the maximum has no derivative to compare with.
    vertical, horizontal = (
        torch.from_numpy(rng.permutation(2 * 3 * 4).reshape(1, 2, 3, 4).astype(np.float64)).requires_grad_()
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda a, b: corner_pool(a, b, corner), (vertical, horizontal))


@BOTH
def test_gradient_of_a_cell_counts_the_cells_that_took_it(corner):
    vertical = torch.zeros(1, 1, 4, 1)
    vertical[0, 0, 2] = 1
    vertical.requires_grad_()
    corner_pool(vertical, torch.zeros(1, 1, 4, 1), corner).sum().backward()
    taken = {Corner.TOP_LEFT: 3, Corner.BOTTOM_RIGHT: 2}[corner]  # itself and the cells before it, or after
    assert vertical.grad[0, 0, 2] == taken


# The body of standard operators.


def pool_model(corner, largest_side, dtype=np.float32):
    """Return a model of one custom node, with its body, for maps of any size."""
    element, shape = ELEMENTS[dtype], ["N", "C", "H", "W"]
    node = helper.make_node(
        corner.value,
        ["a", "b"],
        ["y"],
        domain=PLUGIN_NAMESPACE,
        plugin_namespace=PLUGIN_NAMESPACE,
        plugin_version="1",
    )
    graph = helper.make_graph(
        [node],
        "pool",
        [helper.make_tensor_value_info(name, element, shape) for name in ("a", "b")],
        [helper.make_tensor_value_info("y", element, shape)],
    )
    return helper.make_model(
        graph,
        functions=[pool_function(corner, largest_side)],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(PLUGIN_NAMESPACE, 1)],
        ir_version=10,  # the lowest that holds opset 20 is 9; the newest is ahead of some runtimes
    )


def in_onnx_runtime(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda a, b: torch.from_numpy(session.run(None, {"a": a.numpy(), "b": b.numpy()})[0])


def in_reference_evaluator(model):
    evaluator = ReferenceEvaluator(model)
    return lambda a, b: torch.from_numpy(evaluator.run(None, {"a": a.numpy(), "b": b.numpy()})[0])


RUNTIMES = pytest.mark.parametrize("runtime", [in_onnx_runtime, in_reference_evaluator])


def sizes_up_to(side):
    """Squares and both kinds of oblong whose longer side is ``side``."""
    shorter = sorted({1, side // 2 + 1, side})
    return sorted({(side, other) for other in shorter} | {(other, side) for other in shorter})


@RUNTIMES
@TYPES
@BOTH
@pytest.mark.parametrize("side", SIDES)
def test_body_equals_eager_bit_for_bit(runtime, dtype, corner, side):
    rng = np.random.default_rng(side)
    run = runtime(pool_model(corner, side, dtype))
    for height, width in sizes_up_to(side):
        vertical = random_map(rng, (1, 2, height, width), dtype)
        horizontal = random_map(rng, (1, 2, height, width), dtype)
        assert_same(run(vertical, horizontal), corner_pool(vertical, horizontal, corner))


@RUNTIMES
@TYPES
@BOTH
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 4), (33, 31)], ids=str)
def test_body_equals_eager_with_nan_infinities_and_ties(runtime, dtype, corner, size):
    rng = np.random.default_rng(5)
    run = runtime(pool_model(corner, max(size), dtype))
    values = np.array([-np.inf, -1, 0, 1, 2, np.inf, np.nan], dtype)
    # Mostly plain values, so that NaN does not swallow the map.
    likelihood = [0.04, 0.28, 0.28, 0.28, 0.06, 0.03, 0.03]
    for _ in range(5):
        vertical, horizontal = (torch.from_numpy(rng.choice(values, (2, 2, *size), p=likelihood)) for _ in range(2))
        with np.errstate(invalid="ignore"):  # the evaluator adds in NumPy, which remarks on inf - inf
            found = run(vertical, horizontal)
        assert_same(found, corner_pool(vertical, horizontal, corner))


@RUNTIMES
@BOTH
@pytest.mark.parametrize(("largest_side", "power"), [(1, 1), (3, 4), (5, 8), (9, 16), (32, 32), (33, 64)])
def test_body_is_right_up_to_the_next_power_of_two(runtime, corner, largest_side, power):
    rng = np.random.default_rng(6)
    run = runtime(pool_model(corner, largest_side))
    for height in range(1, power + 1):
        width = power + 1 - height
        vertical, horizontal = random_map(rng, (1, 1, height, width)), random_map(rng, (1, 1, height, width))
        assert_same(run(vertical, horizontal), corner_pool(vertical, horizontal, corner))


@RUNTIMES
@BOTH
@pytest.mark.parametrize("largest_side", [1, 3, 4, 16])
def test_body_does_not_reach_beyond_the_next_power_of_two(runtime, corner, largest_side):
    """Why the largest size that a file accepts must be in its metadata."""
    side = 2 ** (largest_side - 1).bit_length() + 1
    vertical = torch.zeros(1, 1, side, 1)
    vertical[0, 0, -1 if corner is Corner.TOP_LEFT else 0] = 1
    pooled = runtime(pool_model(corner, largest_side))(vertical, torch.zeros_like(vertical))
    assert pooled[0, 0, 0 if corner is Corner.TOP_LEFT else -1] == 0


@BOTH
@pytest.mark.parametrize("largest_side", [1, 2, 128])
def test_model_with_the_body_passes_the_full_check(corner, largest_side):
    onnx.checker.check_model(pool_model(corner, largest_side), full_check=True)


@BOTH
def test_body_has_standard_operators_only_and_no_float_constant(corner):
    body = pool_function(corner, 128)
    assert {node.domain for node in body.node} == {""}
    assert [(item.domain, item.version) for item in body.opset_import] == [("", OPSET)]
    constants = [attribute.name for node in body.node if node.op_type == "Constant" for attribute in node.attribute]
    assert set(constants) == {"value_int"}  # a float would tie the body to one type


@BOTH
def test_body_takes_seven_steps_a_direction_for_128_cells(corner):
    operators = [node.op_type for node in pool_function(corner, 128).node]
    assert operators.count("Gather") == 2 * 7


@BOTH
def test_body_declares_the_attributes_of_the_plugin(corner):
    body = pool_function(corner, 8)
    assert (body.domain, body.name) == ("cornernet", corner.value)
    assert sorted(body.attribute) == ["plugin_namespace", "plugin_version"]

"""Focal, pull and push loss against formulas written as plain loops over Python floats."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from cases.losses import CLASSES, FLOAT32, focal_by_loops, pull_by_loops, push_by_loops

from cornernet_train.losses import focal_loss, pull_push_loss

# Focal loss.


def heat_and_target(seed, spread, shape=(2, CLASSES, 7, 9)):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 1, shape) ** 4
    target[rng.uniform(size=shape) < 0.03] = 1
    return (torch.tensor(values, dtype=torch.float32) for values in (rng.normal(0, spread, shape), target))


@pytest.mark.parametrize("seed", range(4))
def test_focal_loss_is_equation_1(seed):
    heat, target = heat_and_target(seed, spread=2)
    assert (target == 1).sum() > 1
    assert focal_loss(heat, target).item() == pytest.approx(focal_by_loops(heat, target), rel=FLOAT32)


@pytest.mark.parametrize("spread", [20, 1000])
def test_focal_loss_clamps_probabilities(spread):
    heat, target = heat_and_target(1, spread)
    # 1 - p of a p that is clamped to 0.9999 has three digits in float32, of which the logarithm makes five.
    assert focal_loss(heat, target).item() == pytest.approx(focal_by_loops(heat, target), rel=1e-4)


def test_focal_loss_of_one_class_is_equation_1():
    heat, target = heat_and_target(5, spread=2, shape=(3, 1, 8, 8))
    assert focal_loss(heat, target).item() == pytest.approx(focal_by_loops(heat, target), rel=FLOAT32)


def test_focal_loss_without_objects_is_the_undivided_sum_over_background():
    heat = torch.zeros(1, 1, 2, 2)
    target = torch.tensor([[[[0.0, 0.0], [0.5, 0.0]]]])
    # p is 0.5: three cells of 0.25 log 2, and one of that times 0.5**4.
    assert focal_loss(heat, target).item() == pytest.approx(0.25 * math.log(2) * (3 + 0.5**4), rel=FLOAT32)


def test_focal_loss_of_one_corner_by_hand():
    heat = torch.tensor([[[[0.0, math.log(3)]]]])  # p is 1/2 and 3/4
    target = torch.tensor([[[[0.0, 1.0]]]])
    expected = -(0.25 * math.log(0.5)) - (0.0625 * math.log(0.75))
    assert focal_loss(heat, target).item() == pytest.approx(expected, rel=FLOAT32)


def test_focal_loss_is_divided_by_the_number_of_ones():
    heat = torch.full((1, 1, 1, 4), -1.0)
    one, two = torch.tensor([[[[1.0, 0, 0, 0]]]]), torch.tensor([[[[1.0, 0, 0, 1]]]])
    p = 1 / (1 + math.e)
    positive, negative = -((1 - p) ** 2) * math.log(p), -(p**2) * math.log(1 - p)
    assert focal_loss(heat, one).item() == pytest.approx(positive + 3 * negative, rel=FLOAT32)
    assert focal_loss(heat, two).item() == pytest.approx((2 * positive + 2 * negative) / 2, rel=FLOAT32)


def test_only_exactly_one_is_a_corner():
    heat = torch.full((1, 1, 1, 2), 1.0)
    almost = float(np.nextafter(np.float32(1), np.float32(0)))
    target = torch.tensor([[[[1.0, almost]]]])
    p = 1 / (1 + math.exp(-1))
    assert focal_loss(heat, target).item() == pytest.approx(-((1 - p) ** 2) * math.log(p), rel=FLOAT32)


def test_focal_loss_of_bfloat16_heat_is_computed_in_float32():
    heat, target = heat_and_target(2, spread=2)
    rounded = heat.bfloat16()
    loss = focal_loss(rounded, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(focal_by_loops(rounded.float(), target), rel=FLOAT32)


# Pull and push.


def padded(rows, most, filler):
    """Return [N, most] embeddings and [N, most] bool, rows padded with ``filler``."""
    values = torch.tensor([list(row) + [filler] * (most - len(row)) for row in rows], dtype=torch.float32)
    present = torch.tensor([[True] * len(row) + [False] * (most - len(row)) for row in rows])
    return values, present


@pytest.mark.parametrize("counts", [(0,), (1,), (2,), (30,), (0, 0), (1, 5, 0, 2), (3, 3, 3)])
@pytest.mark.parametrize("filler", [0.0, 777.0])
def test_pull_and_push_are_equations_4_and_5_whatever_the_padding_holds(counts, filler):
    rng = np.random.default_rng(sum(counts))
    tl, br = ([rng.normal(0, 1, count).astype(np.float32).tolist() for count in counts] for _ in range(2))
    most = max(1, *counts) + 2
    (tl_values, present), (br_values, _) = padded(tl, most, filler), padded(br, most, filler / 2)
    pull, push = pull_push_loss(tl_values, br_values, present)
    expected_pull = sum(pull_by_loops(*pair) for pair in zip(tl, br, strict=True))
    expected_push = sum(push_by_loops(*pair) for pair in zip(tl, br, strict=True))
    assert pull.item() == pytest.approx(expected_pull, rel=FLOAT32, abs=0)
    assert push.item() == pytest.approx(expected_push, rel=FLOAT32, abs=0)


def test_pull_and_push_by_hand():
    present = torch.ones(1, 2, dtype=torch.bool)
    pull, push = pull_push_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]]), present)
    # Means 0.5 and 1: the first object's corners are half from it each, and the means lack half of the distance 1.
    assert (pull.item(), push.item()) == (0.25, 0.5)


def test_means_at_least_1_apart_are_not_pushed():
    embeddings = torch.tensor([[0.0, 1.0, -1.5, 7.0]])
    pull, push = pull_push_loss(embeddings, embeddings, torch.ones(1, 4, dtype=torch.bool))
    assert (pull.item(), push.item()) == (0.0, 0.0)


def test_a_single_object_is_not_pushed_from_itself():
    _, push = pull_push_loss(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([[True, False, False]]))
    assert push.item() == 0.0


def push_within_class_by_loops(tl, br, labels):
    """The mean over the pairs of one class, of one picture."""
    means = [(a + b) / 2 for a, b in zip(tl, br, strict=True)]
    pairs = [(j, k) for j, k in product(range(len(means)), repeat=2) if j != k and labels[j] == labels[k]]
    return sum(max(0.0, 1 - abs(means[k] - means[j])) for j, k in pairs) / max(1, len(pairs))


@pytest.mark.parametrize("counts", [(1,), (2,), (30,), (1, 5, 0, 2), (3, 3, 3)])
def test_push_within_class_is_the_mean_over_pairs_of_one_class(counts):
    rng = np.random.default_rng(sum(counts))
    tl, br = ([rng.normal(0, 1, count).astype(np.float32).tolist() for count in counts] for _ in range(2))
    labels = [rng.integers(0, 2, count).tolist() for count in counts]
    most = max(counts)
    (tl_values, present), (br_values, _) = padded(tl, most, 0.0), padded(br, most, 0.0)
    pull, push = pull_push_loss(tl_values, br_values, present, padded(labels, most, 0)[0].long())
    expected = sum(push_within_class_by_loops(*rows) for rows in zip(tl, br, labels, strict=True))
    assert push.item() == pytest.approx(expected, rel=FLOAT32, abs=0)
    assert pull.item() == pull_push_loss(tl_values, br_values, present)[0].item()


def test_objects_of_different_classes_are_pushed_unless_only_those_of_one_are():
    embeddings, present = torch.tensor([[0.0, 0.25]]), torch.ones(1, 2, dtype=torch.bool)
    assert pull_push_loss(embeddings, embeddings, present)[1].item() == 0.75
    assert pull_push_loss(embeddings, embeddings, present, torch.tensor([[0, 1]]))[1].item() == 0.0
    assert pull_push_loss(embeddings, embeddings, present, torch.tensor([[1, 1]]))[1].item() == 0.75

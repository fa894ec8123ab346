"""The whole loss of a batch, its gradients, and that of the ideal maps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from cases.losses import CLASSES, FLOAT32, HEIGHT, WIDTH, focal_by_loops, pull_by_loops, push_by_loops

from cornernet_export.model import CornerTensors
from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_train.data import Example, collate
from cornernet_train.losses import TargetBatch, corner_losses, focal_loss
from cornernet_train.recipe import LossWeights


def smooth_l1(difference):
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def stack_by_loops(maps, targets):
    """Return detection, pull, push and offset of one stack, weighted as in section 3.4 of the paper."""
    detection = sum(focal_by_loops(getattr(maps, name), getattr(targets, name)) for name in ("tl_heat", "br_heat"))
    pull = push = offset = 0.0
    pictures, objects = len(targets.present), int(targets.present.sum())
    for picture in range(pictures):
        embeddings = {"tl": [], "br": []}
        for slot in range(targets.present.shape[1]):
            if not targets.present[picture, slot]:
                continue
            for kind in ("tl", "br"):
                y, x = divmod(int(getattr(targets, f"{kind}_cells")[picture, slot]), WIDTH)
                embeddings[kind].append(getattr(maps, f"{kind}_embed")[picture, 0, y, x].item())
                for axis in (0, 1):
                    found = getattr(maps, f"{kind}_offset")[picture, axis, y, x].item()
                    offset += smooth_l1(found - float(getattr(targets, f"{kind}_offsets")[picture, slot, axis]))
        pull += pull_by_loops(embeddings["tl"], embeddings["br"])
        push += push_by_loops(embeddings["tl"], embeddings["br"])
    return [detection, 0.1 * pull, 0.1 * push, offset / max(objects, 1)]


# Material.


def random_boxes(rng, count):
    corners = rng.uniform(0, 1, (count, 2, 2)) * [95, 63]
    return np.concatenate([corners.min(1), corners.max(1) + 1], 1).clip(0, [95, 63, 95, 63])


def encoded(boxes, labels):
    return encode_boxes(boxes, np.array(labels, int), classes=CLASSES, map_size=(HEIGHT, WIDTH), input_size=(63, 95))


def batch_of(*pictures):
    """Return the TargetBatch of pictures given as (boxes, labels)."""
    image = np.zeros((3, 63, 95), np.float32)
    return collate([Example(image, encoded(*picture)) for picture in pictures]).targets


def random_batch(counts, seed=0):
    rng = np.random.default_rng(seed)
    return batch_of(*((random_boxes(rng, count), rng.integers(0, CLASSES, count)) for count in counts))


def random_maps(pictures, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    channels = (CLASSES, CLASSES, 1, 1, 2, 2)
    return CornerTensors(*(torch.randn(pictures, c, HEIGHT, WIDTH, generator=generator) * spread for c in channels))


def perfect_maps(*pictures):
    maps = [ideal_maps(encoded(*picture)) for picture in pictures]
    return CornerTensors(
        *(torch.from_numpy(np.stack([getattr(item, name) for item in maps])) for name in CornerTensors._fields)
    )


def parts(losses):
    return [float(part) for part in losses]


# All of it.


@pytest.mark.parametrize("counts", [(3,), (1, 4), (0, 2), (6, 0, 1)])
def test_each_part_is_that_of_the_formulas(counts):
    targets, maps = random_batch(counts, seed=sum(counts)), random_maps(len(counts), seed=1)
    np.testing.assert_allclose(parts(corner_losses([maps], targets)), stack_by_loops(maps, targets), rtol=FLOAT32)


def test_offset_loss_is_smooth_l1_summed_over_axes_and_divided_by_objects():
    targets = batch_of(([[10, 20, 50, 60], [30, 10, 80, 40]], [0, 1]))
    maps = CornerTensors(*(torch.zeros_like(part) for part in random_maps(1, 0)))
    for kind, wrong in (("tl", [0.5, 3.0]), ("br", [0.0, 0.0])):
        for slot in range(2):
            y, x = divmod(int(getattr(targets, f"{kind}_cells")[0, slot]), WIDTH)
            true = getattr(targets, f"{kind}_offsets")[0, slot]
            getattr(maps, f"{kind}_offset")[0, :, y, x] = true + (torch.tensor(wrong) if slot else 0)
    # One of two objects is off, by 0.5 in x (half its square) and 3 in y (half less).
    assert corner_losses([maps], targets).offset.item() == pytest.approx((0.125 + 2.5) / 2, rel=FLOAT32)


def test_stacks_are_averaged():
    targets, first, second = random_batch((2, 3)), random_maps(2, 1), random_maps(2, 2)
    each = [parts(corner_losses([maps], targets)) for maps in (first, second)]
    assert each[0] != each[1]
    np.testing.assert_allclose(parts(corner_losses([first, second], targets)), np.mean(each, axis=0), rtol=FLOAT32)


def test_the_total_is_the_sum_of_the_parts():
    losses = corner_losses([random_maps(2, 1)], random_batch((2, 3)))
    assert losses.total.item() == pytest.approx(sum(parts(losses)), rel=FLOAT32)


def test_pictures_without_objects_cost_only_their_false_corners():
    targets, maps = random_batch((0, 0)), random_maps(2, 3)
    losses = corner_losses([maps], targets)
    assert parts(losses)[1:] == [0.0, 0.0, 0.0]
    assert losses.detection.item() == pytest.approx(stack_by_loops(maps, targets)[0], rel=FLOAT32)


def test_maps_in_bfloat16_give_losses_in_float32():
    targets, maps = random_batch((2, 1)), random_maps(2, 4)
    rounded = CornerTensors(*(part.bfloat16() for part in maps))
    losses = corner_losses([rounded], targets)
    assert {part.dtype for part in losses} == {torch.float32}
    expected = stack_by_loops(CornerTensors(*(part.float() for part in rounded)), targets)
    np.testing.assert_allclose(parts(losses), expected, rtol=FLOAT32)


@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_gradients_are_finite_however_wild_the_maps(spread):
    targets = random_batch((4, 0, 1))
    maps = CornerTensors(*(part.requires_grad_() for part in random_maps(3, 5, spread)))
    losses = corner_losses([maps], targets)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(part.grad).all() for part in maps)


def test_gradients_are_those_of_finite_differences_of_the_formulas():
    targets = random_batch((3, 0, 2), seed=4)
    maps = CornerTensors(*(part.requires_grad_() for part in random_maps(3, 9)))
    corner_losses([maps], targets).total.backward()
    cells = {kind: getattr(targets, f"{kind}_cells")[0, 0].item() for kind in ("tl", "br")}
    step, checked = 1e-3, 0
    for name, part in zip(CornerTensors._fields, maps, strict=True):
        corner = divmod(cells[name[:2]], WIDTH)
        # The corner of an object, its neighbour, and a cell of the picture without any.
        for channel, (picture, y, x) in product(
            range(part.shape[1]), ((0, *corner), (0, corner[0], corner[1] - 1), (1, 3, 4))
        ):
            sides = []
            for sign in (1, -1):
                moved = part.detach().double().clone()
                moved[picture, channel, y, x] += sign * step
                sides.append(sum(stack_by_loops(maps._replace(**{name: moved}), targets)))
            slope = (sides[0] - sides[1]) / (2 * step)
            # The differences have an error of the square of the step, the gradients that of float32.
            assert part.grad[picture, channel, y, x].item() == pytest.approx(slope, rel=1e-4, abs=1e-5), name
            checked += slope != 0
    assert checked > 20


def test_weights_multiply_their_parts():
    targets, maps = random_batch((3, 2)), random_maps(2, 1)
    plain = np.array(parts(corner_losses([maps], targets)))
    weighted = parts(corner_losses([maps], targets, LossWeights(pull=0.3, push=0.5, offset=2.0)))
    np.testing.assert_allclose(weighted, plain * [1, 3, 5, 2], rtol=FLOAT32)


def test_gradients_raise_corners_and_lower_background():
    targets = random_batch((3,))
    heat = torch.zeros_like(targets.tl_heat, requires_grad=True)
    focal_loss(heat, targets.tl_heat).backward()
    corner = targets.tl_heat == 1
    assert (heat.grad[corner] < 0).all()
    assert (heat.grad[~corner] > 0).all()


def test_gradients_reach_only_the_cells_of_corners():
    targets = batch_of(([[10, 20, 50, 60], [30, 10, 80, 40]], [0, 1]))
    maps = CornerTensors(*(part.requires_grad_() for part in random_maps(1, 6)))
    corner_losses([maps], targets).total.backward()
    for kind in ("tl", "br"):
        cells = {divmod(int(cell), WIDTH) for cell in getattr(targets, f"{kind}_cells")[0]}
        for part in ("embed", "offset"):
            touched = getattr(maps, f"{kind}_{part}").grad.abs().sum((0, 1)).nonzero().tolist()
            assert {tuple(cell) for cell in touched} == cells


# The ideal.

PICTURES = (
    ([[10.2, 20.7, 50.1, 60.3], [30.9, 5.5, 80.2, 40.8]], [0, 2]),
    ([[3.3, 8.1, 44.4, 52.9]], [1]),
)


def test_a_perfect_prediction_has_no_pull_push_or_offset_loss():
    losses = corner_losses([perfect_maps(*PICTURES)], batch_of(*PICTURES))
    assert parts(losses)[1:] == [0.0, 0.0, 0.0]


def test_a_perfect_prediction_costs_a_hundredth_of_a_random_one():
    targets = batch_of(*PICTURES)
    perfect = corner_losses([perfect_maps(*PICTURES)], targets)
    random = corner_losses([random_maps(2, 7)], targets)
    # What is left is the slope of the gaussians, whose cells are neither corner nor background.
    assert perfect.total.item() < random.total.item() / 100


@pytest.mark.parametrize("name", CornerTensors._fields)
def test_every_map_counts(name):
    targets, maps = batch_of(*PICTURES), perfect_maps(*PICTURES)
    worse = maps._replace(**{name: getattr(random_maps(2, 8), name)})
    assert corner_losses([worse], targets).total > corner_losses([maps], targets).total + 0.01


def test_a_batch_holds_what_its_fields_promise():
    targets = random_batch((2, 0))
    assert isinstance(targets, TargetBatch)
    kinds = {"heat": torch.float32, "cells": torch.int64, "offsets": torch.float32, "labels": torch.int64}
    for name, part in zip(TargetBatch._fields[:-1], targets, strict=False):
        assert part.dtype == kinds[name.split("_")[-1]]
    assert targets.present.tolist() == [[True, True], [False, False]]

"""Recipes and their schedules, and the running mean of weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases.tiny_training import TINY

from cornernet_export.model import CornerNet, CornerNetConfig, preset
from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_train.ema import WeightAverage
from cornernet_train.recipe import RECIPES, Augmentation, LossWeights, Recipe, learning_rate
from cornernet_train.shapes import CLASS_NAMES


def test_one_cycle_is_that_of_pytorch():
    recipe = replace(TINY, steps=101)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    # PyTorch places the peak at a step of 0.1 * steps - 1, ours at a tenth of the way: 110 steps of it are 101 of ours.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=101, pct_start=11 / 101, div_factor=25, final_div_factor=1e4
    )
    for step in range(101):
        assert learning_rate(recipe, step) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 100:
            schedule.step()


def test_a_step_schedule_is_divided_by_ten_twice():
    recipe = replace(TINY, steps=101, schedule="step", learning_rate=1.0)
    rates = [round(learning_rate(recipe, step), 12) for step in range(101)]
    assert rates == [1.0] * 60 + [0.1] * 25 + [0.01] * 16


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_trainings_have_rates_between_nothing_and_the_peak(steps):
    recipe = replace(TINY, steps=steps)
    assert all(0 < learning_rate(recipe, step) <= recipe.learning_rate for step in range(steps))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": -1},
        {"learning_rate": 0.0},
        {"gradient_norm": 0.0},
        {"weight_decay": -1.0},
        {"ema_decay": 1.0},
        {"save_every": 0},
        {"validate_every": 0},
        {"seed": -1},
    ],
)
def test_numbers_that_make_no_training_are_refused(wrong):
    with pytest.raises(RecordError, match=f"recipe: expected .*{next(iter(wrong))}"):
        replace(TINY, **wrong)


def test_amounts_that_make_no_augmentation_are_refused():
    for wrong in ({"scales": (0.0, 1.0)}, {"scales": (1.4, 0.6)}, {"flip": 1.5}, {"jitter": 1.0}, {"lighting": -0.1}):
        with pytest.raises(RecordError, match="augmentation"):
            Augmentation(**wrong)
    with pytest.raises(RecordError, match="losses"):
        LossWeights(pull=-1)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_fit_their_networks_and_survive_json(name):
    recipe = RECIPES[name]
    config = preset(recipe.arch, classes=len(CLASS_NAMES))
    size = recipe.input_size
    ModelSpec(config.name, CLASS_NAMES, config.stride, config.modulus, size, size)  # raises where it does not fit
    assert from_json(Recipe, to_json(recipe)) == recipe


# The running mean.

TWO_LAYERS = CornerNetConfig("x", classes=1, stacks=1, stem=(2, 2), dims=(2, 2), modules=(1, 1), pool_width=1)


def filled(value):
    model = CornerNet(TWO_LAYERS)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def means(average):
    return {
        float(tensor.double().mean()) for tensor in average.model.state_dict().values() if tensor.is_floating_point()
    }


def test_the_mean_follows_by_one_minus_its_decay():
    average = WeightAverage(filled(0.0), decay=0.9)
    average.update(filled(1.0), step=10_000)
    (first,) = means(average)
    average.update(filled(1.0), step=10_001)
    (second,) = means(average)
    assert (first, second) == (pytest.approx(0.1), pytest.approx(0.19))


def test_the_mean_follows_faster_at_the_beginning():
    average = WeightAverage(filled(0.0), decay=0.999)
    average.update(filled(1.0), step=1)
    (mean,) = means(average)
    assert mean == pytest.approx(1 - 2 / 11)


def test_a_decay_of_0_copies_and_counters_are_always_copied():
    average = WeightAverage(filled(0.0), decay=0.0)
    average.update(filled(3.0), step=10)
    assert means(average) == {3.0}
    average = WeightAverage(filled(0.0), decay=0.9)
    average.update(filled(7.0), step=10_000)
    counters = [tensor for tensor in average.model.state_dict().values() if not tensor.is_floating_point()]
    assert counters
    assert {int(counter) for counter in counters} == {7}


def test_the_mean_shares_no_memory_with_the_network_and_is_in_inference_mode():
    model = filled(1.0).train()
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        next(model.parameters()).fill_(9.0)
    assert means(average) == {1.0}
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())

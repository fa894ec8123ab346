"""How a model is trained, as one record: it stands in the training state, so that resuming can compare."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cornernet_runtime.bundle.records import RecordError, from_json

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "config.json"  # of a training: its recipe, among others
Schedule = Literal["one-cycle", "step"]

RISE = 0.1  # of a one-cycle schedule, from a twenty-fifth of its peak; it ends near zero
STEP_AT = (0.6, 0.85)  # of a step schedule; each divides the rate by ten


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How pictures are varied, as the original does; ``Augmentation()`` leaves them alone.

    Attributes:
        scales: Least and largest factor between picture and crop; equal to 1 for no crop.
        flip: Part of the pictures that is mirrored.
        jitter: Largest relative change of brightness, contrast and saturation.
        lighting: Standard deviation of shifts along the principal colours of natural pictures, grey levels of 1.
    """

    scales: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    jitter: float = 0.0
    lighting: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scales[0] <= self.scales[1]:
            raise RecordError(f"augmentation.scales: expected two rising positive factors, got {self.scales}")
        if not 0 <= self.flip <= 1 or not 0 <= self.jitter < 1 or self.lighting < 0:
            raise RecordError(f"augmentation: expected flip of 0 to 1, jitter below 1, lighting >= 0, got {self}")


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each part of the loss counts beside detection; the defaults are the paper's.

    Attributes:
        pull: Both corners of an object have one embedding.
        push: Objects have embeddings apart.
        offset: Where in its cell a corner lies.
        push_within_class: Push only objects of one class apart, the only ones that decoding could pair, and take the
            mean over their pairs. The paper pushes all.
    """

    pull: float = 0.1
    push: float = 0.1
    offset: float = 1.0
    push_within_class: bool = False

    def __post_init__(self) -> None:
        if min(self.pull, self.push, self.offset) < 0:
            raise RecordError(f"losses: expected weights of at least 0, got {self}")


ORIGINAL_AUGMENTATION = Augmentation(scales=(0.6, 1.4), flip=0.5, jitter=0.4, lighting=0.1)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes:
        arch: Named shape of the network.
        input_size: Height and width of the input, pixels.
        steps: Optimiser steps.
        batch: Pictures a step.
        learning_rate: Peak of the schedule.
        schedule: One cycle of cosines, up and down, or a constant that is divided by ten twice.
        weight_decay: Of AdamW, decoupled.
        gradient_norm: Gradients are scaled down to this norm.
        ema_decay: Of the running mean of weights that is validated and shipped; 0 for the weights themselves.
        losses: What each part of the loss counts.
        augmentation: Of the pictures of a folder; scenes of shapes are endless and need none.
        bfloat16: Whether convolutions run in bfloat16; weights, sums and losses stay float32.
        validate_every: Steps between validations.
        save_every: Steps between training states on disk.
        seed: Of weights, of the order of pictures, and of how they are varied.
    """

    arch: str
    input_size: tuple[int, int]
    steps: int
    batch: int
    learning_rate: float
    schedule: Schedule = "one-cycle"
    weight_decay: float = 0.01
    gradient_norm: float = 5.0
    ema_decay: float = 0.998
    losses: LossWeights = LossWeights()
    augmentation: Augmentation = Augmentation()
    bfloat16: bool = False
    validate_every: int = 500
    save_every: int = 100
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.validate_every, self.save_every) < 1:
            raise RecordError("recipe: expected steps, batch, validate_every and save_every of at least 1")
        if not 0 < self.learning_rate < math.inf or self.gradient_norm <= 0 or self.weight_decay < 0:
            raise RecordError("recipe: expected finite learning_rate > 0, gradient_norm > 0 and weight_decay >= 0")
        if not 0 <= self.ema_decay < 1 or self.seed < 0:
            raise RecordError("recipe: expected ema_decay of 0 to below 1 and seed >= 0")


# Input, batch, rate, steps and augmentation are the paper's, which trained on ten cards; optimiser, schedule, running
# mean and bfloat16 are this project's. To fine-tune by, with fewer steps and smaller batches.
PUBLISHED = Recipe(
    arch="cornernet-104",
    input_size=(511, 511),
    steps=500_000,
    batch=49,
    learning_rate=2.5e-4,
    schedule="step",
    augmentation=ORIGINAL_AUGMENTATION,
    bfloat16=True,
    validate_every=5000,
    save_every=500,
)

RECIPES = {
    "cornernet-tiny": Recipe(
        arch="cornernet-tiny",
        input_size=(255, 255),
        steps=6500,
        batch=8,
        learning_rate=2.5e-3,
        losses=LossWeights(pull=0.25, push=0.25, push_within_class=True),
        augmentation=ORIGINAL_AUGMENTATION,
        bfloat16=True,
        validate_every=1000,
    ),
    "cornernet-104": PUBLISHED,
    "cornernet-squeeze": replace(PUBLISHED, arch="cornernet-squeeze"),
}


def stored_recipe(output: Path, named: Recipe) -> Recipe:
    """Return the recipe of the training in ``output`` if it is of the architecture of the named one, else that."""
    try:
        stored = from_json(Recipe, json.loads((output / CONFIG).read_text(encoding="utf-8"))["recipe"])
    except (OSError, KeyError, TypeError, ValueError):
        return named  # resuming says what is wrong
    return stored if stored.arch == named.arch else named


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of optimiser step ``step``, counted from 0; a function of nothing else, so nothing is stored."""
    peak = recipe.learning_rate
    part = step / max(1, recipe.steps - 1)
    if recipe.schedule == "step":
        return peak * 0.1 ** sum(part >= at for at in STEP_AT)
    if part < RISE:
        return _cosine(peak / 25, peak, part / RISE)
    return _cosine(peak, peak / 250_000, (part - RISE) / (1 - RISE))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

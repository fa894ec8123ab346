"""The training loop: a recipe, some pictures, a checkpoint."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.model import CornerNet, preset
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import CornerNetError, OutputError
from cornernet_runtime.files import make_folder, write_atomically
from cornernet_runtime.spec import ModelSpec
from cornernet_train.data import Examples, Pictures, collate
from cornernet_train.losses import Losses, TargetBatch, corner_losses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG_EVERY = 20  # steps
SAVE_EVERY = 500  # steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes:
        arch: Named shape of the network.
        input_size: Height and width of the input, pixels.
        steps: Optimiser steps.
        batch: Pictures a step.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW, decoupled.
        gradient_norm: Gradients are scaled down to this norm.
        bfloat16: Whether convolutions run in bfloat16; weights, sums and losses stay float32.
        seed: Of weights and of the order of pictures.
    """

    arch: str
    input_size: tuple[int, int]
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    gradient_norm: float
    bfloat16: bool
    seed: int


RECIPES = {
    "cornernet-tiny": Recipe(
        arch="cornernet-tiny",
        input_size=(255, 255),
        steps=2400,
        batch=8,
        learning_rate=2.5e-3,
        weight_decay=0.01,
        gradient_norm=5.0,
        bfloat16=True,
        seed=1,
    ),
}


def fit(recipe: Recipe, pictures: Pictures, output: Path) -> Path:
    """Train and return the path of the checkpoint; ``log.csv`` beside it holds the losses.

    The checkpoint is written every 500 steps and at the end, the same name each time.

    Raises:
        OutputError: ``output`` cannot be written, or holds a checkpoint already.
        CornerNetError: The loss became NaN or infinite.
    """
    # Gradients of a nearly trained network are full of denormal numbers, on which a CPU is over ten times slower. The
    # setting is per thread and inherited, so it comes before PyTorch starts its threads.
    torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed)
    make_folder(output)
    config = preset(recipe.arch, classes=len(pictures.class_names))
    spec = ModelSpec(
        name=config.name,
        class_names=pictures.class_names,
        stride=config.stride,
        modulus=config.modulus,
        input_size=recipe.input_size,
        largest_size=recipe.input_size,
    )
    model = CornerNet(config).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # in stubs for tensors only
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.1)
    checkpoint, log = output / f"{config.name}.safetensors", _Log(output / "log.csv", recipe.steps)
    if checkpoint.exists():
        raise OutputError(f"{checkpoint} exists: choose another folder")
    with _progress() as progress:
        task = progress.add_task("training", total=recipe.steps, losses="")
        for step, (images, targets) in enumerate(_fetched(_batches(recipe, pictures, spec)), start=1):
            losses = _step(model, optimizer, images, targets, recipe)
            schedule.step()
            log.add(step, losses, float(schedule.get_last_lr()[0]))
            progress.update(task, completed=step, losses=log.summary())
            if step % SAVE_EVERY == 0 or step == recipe.steps:
                save_checkpoint(checkpoint, model, spec)
    return checkpoint


def _step(
    model: CornerNet,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    targets: TargetBatch,
    recipe: Recipe,
) -> Losses:
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        stacks = model.all_stacks(images.contiguous(memory_format=torch.channels_last))
    losses = corner_losses(stacks, targets)
    if not torch.isfinite(losses.total):
        raise CornerNetError("the loss is no longer finite; lower the learning rate")
    optimizer.zero_grad()
    losses.total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    optimizer.step()
    return Losses(*(part.detach() for part in losses))


def _batches(recipe: Recipe, pictures: Pictures, spec: ModelSpec) -> DataLoader[tuple[torch.Tensor, TargetBatch]]:
    """Return exactly as many batches as the recipe has steps; pictures are drawn anew when all were seen."""
    examples = Examples(pictures, spec)
    order = RandomSampler(
        examples,
        num_samples=recipe.steps * recipe.batch,
        generator=torch.Generator().manual_seed(recipe.seed),
    )
    # A loader is typed by what its data set holds; what it yields is what ``collate`` makes of it.
    return DataLoader(
        cast("Dataset[tuple[torch.Tensor, TargetBatch]]", examples),
        recipe.batch,
        sampler=order,
        num_workers=1,
        collate_fn=collate,
    )


def _fetched(loader: DataLoader[tuple[torch.Tensor, TargetBatch]]) -> Iterator[tuple[torch.Tensor, TargetBatch]]:
    """Yield the batches; an error of ours comes without the traceback that a loader wraps around its message."""
    try:
        yield from loader
    except CornerNetError as error:
        kind = type(error)
        raise kind(str(error).rpartition(f"{kind.__name__}: ")[2].rstrip()) from error


class _Log:
    """Mean losses over every ``LOG_EVERY`` steps, and over those left at the end, as CSV."""

    _COLUMNS = ("step", "detection", "pull", "push", "offset", "learning_rate", "elapsed_s")

    def __init__(self, path: Path, steps: int) -> None:
        self._steps = steps
        self._path, self._start = path, time.monotonic()
        self._recent: list[Losses] = []
        self._rows: list[tuple[str, ...]] = []

    def add(self, step: int, losses: Losses, learning_rate: float) -> None:
        self._recent.append(losses)
        if len(self._recent) == LOG_EVERY or step == self._steps:
            means = [f"{float(torch.stack(part).mean()):.4f}" for part in zip(*self._recent, strict=True)]
            elapsed = f"{time.monotonic() - self._start:.0f}"
            self._rows.append((str(step), *means, f"{learning_rate:.3g}", elapsed))
            self._recent.clear()
            self._write()

    def summary(self) -> str:
        if not self._rows:
            return ""
        return " ".join(f"{name} {value}" for name, value in zip(self._COLUMNS[1:5], self._rows[-1][1:5], strict=True))

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._COLUMNS)
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue())


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console_for_people(),
    )

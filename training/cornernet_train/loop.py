"""The training loop: a recipe, some pictures, checkpoints that survive whatever happens."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from cornernet_export.checkpoint import load_checkpoint, save_checkpoint
from cornernet_export.model import CornerNet, preset
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.errors import CornerNetError, FrameError, OutputError
from cornernet_runtime.files import make_folder, sha256, write_atomically
from cornernet_runtime.interrupt import Interrupt
from cornernet_train.data import Batch, Unreadable, batches
from cornernet_train.ema import WeightAverage
from cornernet_train.finetune import adapt
from cornernet_train.log import LOG_EVERY, Reporter, TrainingLog, detached, plot_log
from cornernet_train.losses import Losses, TargetBatch, corner_losses
from cornernet_train.pictures import coco_paths
from cornernet_train.recipe import CONFIG, RECIPES, Recipe, learning_rate
from cornernet_train.state import TrainingState, check_identity, load_state, save_state
from cornernet_train.validate import check_validation, validation_ap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch.utils.data import DataLoader

    from cornernet_train.pictures import Pictures

STATE, LOG, PLOT = "state.pt", "log.csv", "log.png"
LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What is to be trained, and where the results go.

    Attributes:
        recipe: How.
        output: Folder for checkpoints, training state and log.
        checkpoint: Any checkpoint to begin with, instead of random weights.
        validation: Data set in COCO format on which AP is measured; without it the last weights are the best.
        validation_images: Where its pictures lie; None takes ``images`` beside the annotations.
        resume: Go on with what ``output`` holds.
        strict: A picture that cannot be read ends training instead of being left out.
        workers: Processes that make batches; the result does not depend on it.
        device: Where the network is trained.
        log_every: Steps of which a row of the log has the means.
    """

    recipe: Recipe
    output: Path
    checkpoint: Path | None = None
    validation: Path | None = None
    validation_images: Path | None = None
    resume: bool = False
    strict: bool = False
    workers: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    log_every: int = LOG_EVERY


def fit(request: FitRequest, pictures: Pictures) -> Path:
    """Train and return the path of the best checkpoint.

    ``output`` gets ``state.pt`` (to resume), ``last.safetensors`` and ``best.safetensors`` (running means of the
    weights, ready to export; the best by validation AP), ``config.json``, ``log.csv`` and ``log.png``. Each is
    replaced as a whole.

    Raises:
        OutputError: ``output`` cannot be written, or holds a training and ``resume`` is not set.
        CheckpointError: A checkpoint or state cannot be read.
        FrameError: The validation set is none, or a picture cannot be read and ``strict`` is set.
        CornerNetError: ``resume`` with another configuration, a checkpoint of another published architecture than the
            recipe's, no GPU, or the loss or a gradient is no longer finite.
        KeyboardInterrupt: After the step in which the interrupt came, which is saved; a second one does not wait.
    """
    # Gradients of a nearly trained network are full of denormal numbers, on which a CPU is over ten times slower. The
    # setting is per thread and inherited, so it comes before PyTorch starts its threads.
    torch.set_flush_denormal(True)
    if request.device == "cuda" and not torch.cuda.is_available():
        raise CornerNetError("PyTorch finds no GPU here (torch.cuda.is_available()); leave --device away")
    notes = list(pictures.warnings)
    if request.validation is not None:
        notes += check_validation(request.validation, request.validation_images, pictures.class_names)
    prepare_folder(request.output, resume=request.resume)
    trainer = Trainer(request, pictures, notes)
    with Reporter(request.recipe.steps, trainer.step) as reporter, Interrupt() as interrupt:
        trainer.run(reporter, interrupt)
    return trainer.finish(reporter)


class Trainer:
    """A network in training, and all that changes with it.

    Args:
        request: What is to be trained.
        pictures: On what.
        notes: What people should know of the data.
    """

    def __init__(self, request: FitRequest, pictures: Pictures, notes: Sequence[str] = ()) -> None:
        recipe = request.recipe
        self._request, self._pictures = request, pictures
        torch.manual_seed(recipe.seed)
        model, self._spec, news = _begin(request, pictures)
        self._notes = [*notes, *([] if request.resume else news)]
        model = model.to(request.device)
        self._model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # in stubs for tensors only
        self._average = WeightAverage(self._model, recipe.ema_decay)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._identity = {
            "recipe": to_json(recipe),
            "class_names": list(pictures.class_names),
            "pictures": pictures.identity,
            "validation": None if request.validation is None else sha256(coco_paths(request.validation)[0]),
            "checkpoint": None if request.checkpoint is None else sha256(request.checkpoint),
        }
        self.step = 0
        self._best_ap: float | None = None
        self._best_step = 0
        self._unreadable = 0
        self._unreadable_in_a_row = 0
        self._log = self._resumed() if request.resume else TrainingLog(request.output / LOG, every=request.log_every)

    def run(self, reporter: Reporter, interrupt: Interrupt) -> None:
        """Do the steps that are left, or those until somebody interrupts."""
        recipe = self._request.recipe
        for line in self._notes:
            reporter.say(f"note: {line}")
        if self.step == recipe.steps:
            reporter.say(f"note: {self._request.output} is at step {self.step} of {recipe.steps} already")
        loader = batches(recipe, self._pictures, self._spec, self.step, self._request.workers)
        for batch in self._timed(loader, reporter):
            self._note_unreadable(batch, reporter)
            rate = learning_rate(recipe, self.step)
            # A batch of which no picture can be read is a step in which nothing is learned.
            losses = self._train_on(batch, rate) if isinstance(batch, Batch) else None
            self.step += 1
            self._average.update(self._model, self.step)
            last = self.step == recipe.steps
            validate = self._request.validation is not None and (self.step % recipe.validate_every == 0 or last)
            stop = interrupt.asked and not last  # read once: who asks after this is heard at the next step
            row = self._log.add(self.step, losses, rate, last=last or validate)
            if validate:
                self._validate(reporter)
            if self.step % recipe.save_every == 0 or last or validate or stop:
                self._save()
            reporter.step(self.step, self._log.summary(), row=row)
            if stop:
                reporter.say(
                    f"stopped at step {self.step} of {recipe.steps}, which is saved; --resume goes on from there"
                )
                raise KeyboardInterrupt

    def finish(self, reporter: Reporter) -> Path:
        """Draw the log, say what was counted, and return the checkpoint to use."""
        output = self._request.output
        try:
            plot_log(output / LOG, output / PLOT)
        except OutputError as error:
            reporter.say(f"note: {error}")
        if self._unreadable:
            reporter.say(f"note: {self._unreadable} times a picture could not be read and was left out")
        reporter.say(f"waiting for pictures took {reporter.waiting:.1%} of the time")
        return output / (BEST if (output / BEST).exists() else LAST)

    def _train_on(self, batch: Batch, rate: float) -> Losses:
        """Do one optimiser step; the weights stay as they are where loss or gradient is not finite."""
        recipe = self._request.recipe
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        losses, norm = gradients(self._model, batch, recipe)
        if not math.isfinite(norm):
            output = self._request.output
            kept = f"the weights of the last save stay in {output}" if (output / LAST).exists() else "nothing was saved"
            raise CornerNetError(
                f"step {self.step + 1}: the loss or its gradient is no longer finite, on {', '.join(batch.names)}; "
                f"{kept}; "
                "look at these pictures, or begin again in another folder with a lower --learning-rate "
                f"(and --checkpoint {output / LAST}, to keep what was learned)"
            )
        self._optimizer.step()
        return losses

    def _note_unreadable(self, batch: Batch | Unreadable, reporter: Reporter) -> None:
        for reason in batch.unreadable:
            if self._request.strict:
                raise FrameError(reason)
            self._unreadable += 1
            reporter.say(f"note: left out, number {self._unreadable}: {reason}")
        self._unreadable_in_a_row = 0 if isinstance(batch, Batch) else self._unreadable_in_a_row + len(batch.unreadable)
        if self._unreadable_in_a_row >= len(self._pictures):
            raise FrameError(f"no picture can be read; the last: {batch.unreadable[-1]}")

    def _validate(self, reporter: Reporter) -> None:
        assert self._request.validation is not None  # noqa: S101 - the caller asked
        ap = validation_ap(self._average.model, self._spec, self._request.validation, self._request.validation_images)
        self._log.add_ap(ap)
        reporter.say(f"step {self.step}: validation AP {ap:.2f}")
        if self._best_ap is None or ap >= self._best_ap:  # of equal ones that which learned longer
            self._best_ap, self._best_step = ap, self.step

    def _save(self) -> None:
        """Write the state before the weights: they are made again from it on resuming."""
        state = TrainingState(
            identity=self._identity,
            step=self.step,
            model=self._model.state_dict(),
            average=self._average.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            log=self._log.state(),
            best_ap=self._best_ap,
            best_step=self._best_step,
            unreadable=self._unreadable,
            random=torch.get_rng_state(),
        )
        # Without its state the configuration is nothing; a state without it could not say what it is of.
        write_atomically(self._request.output / CONFIG, json.dumps(self._identity, indent=1) + "\n")
        save_state(self._request.output / STATE, state)
        self._write_results()

    def _write_results(self) -> None:
        output = self._request.output
        save_checkpoint(output / LAST, self._average.model, self._spec)
        if self._best_ap is not None and self._best_step == self.step:
            save_checkpoint(output / BEST, self._average.model, self._spec)

    def _resumed(self) -> TrainingLog:
        """Take up the state on disk and return its log."""
        path = self._request.output / STATE
        state = load_state(path)
        if self._request.checkpoint is None:  # its weights are in the state, all else of it in the last weights
            self._identity["checkpoint"] = state.identity.get("checkpoint")
            if self._identity["checkpoint"] and not (self._request.output / LAST).exists():
                raise CornerNetError(f"{path} began with a checkpoint, and there is no {LAST} yet: add --checkpoint")
        check_identity(path, state.identity, self._identity)
        self._model.load_state_dict(state.model)
        self._average.model.load_state_dict(state.average)
        self._optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.random)
        self.step, self._unreadable = state.step, state.unreadable
        self._best_ap, self._best_step = state.best_ap, state.best_step
        self._write_results()  # which a kill after the state was written may have missed
        return TrainingLog(self._request.output / LOG, state.log, self._request.log_every)

    @staticmethod
    def _timed(loader: DataLoader[Batch | Unreadable], reporter: Reporter) -> Iterator[Batch | Unreadable]:
        """Yield the batches and count the time until each was there."""
        before = time.monotonic()
        for batch in loader:
            reporter.waited(time.monotonic() - before)
            yield batch
            before = time.monotonic()


def gradients(model: CornerNet, batch: Batch, recipe: Recipe) -> tuple[Losses, float]:
    """Compute losses and gradients of a batch.

    Returns:
        The losses, and the norm of the gradients before they were scaled down to the recipe's; NaN or infinite where
        either is.
    """
    device = next(model.parameters()).device
    images = batch.images.to(device).contiguous(memory_format=torch.channels_last)
    targets = TargetBatch(*(part.to(device) for part in batch.targets))
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
        stacks = model.all_stacks(images)
    losses = corner_losses(stacks, targets, recipe.losses)
    model.zero_grad()
    losses.total.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    losses = detached(losses)
    return losses, float(norm) if math.isfinite(losses.total) else math.nan


def _begin(request: FitRequest, pictures: Pictures) -> tuple[CornerNet, ModelSpec, list[str]]:
    """Return the network before its first step, its spec, and what people should know."""
    recipe, path = request.recipe, request.checkpoint
    if path is None and request.resume and (request.output / LAST).exists():
        path = request.output / LAST  # has the network and the spec of the checkpoint that training began with
    if path is not None:
        checkpoint = load_checkpoint(path)
        name = checkpoint.model.config.name
        if name in RECIPES and name != recipe.arch:
            raise CornerNetError(f"{path} is a {name}, and the recipe is for {recipe.arch}: --config {name}")
        return adapt(checkpoint, pictures.class_names, recipe.input_size)
    config = preset(recipe.arch, classes=len(pictures.class_names))
    spec = ModelSpec(
        name=config.name,
        class_names=pictures.class_names,
        stride=config.stride,
        modulus=config.modulus,
        input_size=recipe.input_size,
        largest_size=recipe.input_size,
    )
    return CornerNet(config), spec, []


def prepare_folder(output: Path, *, resume: bool) -> None:
    """Make the folder of a training and clear it of what a kill left half-written.

    Raises:
        OutputError: It holds a training that is not to be resumed, none that is, or cannot be written.
    """
    held = [name for name in (STATE, LAST, BEST) if (output / name).exists()]
    if resume and not (output / STATE).exists():
        raise OutputError(f"{output / STATE}: no such file, so there is nothing to resume; leave --resume away")
    if held and not resume:
        raise OutputError(f"{output / held[0]} exists: add --resume to go on with it, or choose another folder")
    make_folder(output)
    for name in (STATE, CONFIG, LOG, PLOT, LAST, BEST):
        for abandoned in output.glob(f".{name}.*"):  # half-written when an earlier run was killed
            abandoned.unlink(missing_ok=True)

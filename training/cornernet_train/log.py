"""What training tells: a CSV file, a bar or lines for people, a picture of the curves."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING, Any, Self

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import open_atomically, write_atomically

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from cornernet_train.losses import Losses

LOG_EVERY = 20  # steps
LINE_EVERY = 5  # rows of the log, where there is no terminal for a bar
LOSSES = ("detection", "pull", "push", "offset")
COLUMNS = ("step", *LOSSES, "learning_rate", "elapsed_s", "ap")


class TrainingLog:
    """Mean losses over every ``every`` steps, and AP where there was a validation, as CSV.

    Args:
        path: Where the file goes; it is written anew with each row.
        state: Of a log to go on with, as ``state`` gave it.
        every: Steps of which a row has the means.
    """

    def __init__(self, path: Path, state: dict[str, Any] | None = None, every: int = LOG_EVERY) -> None:
        self._path, self._every, self._start = path, every, time.monotonic()
        self._recent: list[list[float]] = []
        self._rows: list[list[str]] = []
        if state is not None:
            self._recent = [list(row) for row in state["recent"]]
            self._rows = [list(row) for row in state["rows"]]
            self._start -= state["elapsed_s"]
            self._write()

    @property
    def elapsed_s(self) -> float:
        """Return seconds of training, those before an interruption counted in."""
        return time.monotonic() - self._start

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on with this log."""
        return {
            "recent": [list(row) for row in self._recent],
            "rows": [list(row) for row in self._rows],
            "elapsed_s": self.elapsed_s,
        }

    def add(self, step: int, losses: Losses | None, learning_rate: float, *, last: bool) -> bool:
        """Take in the losses of a step, if it had any; return whether that made a row."""
        if losses is not None:
            self._recent.append([float(part) for part in losses])
        if not self._recent or (len(self._recent) < self._every and not last):
            return False
        means = [f"{sum(part) / len(part):.4f}" for part in zip(*self._recent, strict=True)]
        self._rows.append([str(step), *means, f"{learning_rate:.3g}", f"{self.elapsed_s:.0f}", ""])
        self._recent.clear()
        self._write()
        return True

    def add_ap(self, ap: float) -> None:
        """Write a validation's AP, in points, beside the last row."""
        if self._rows:
            self._rows[-1][-1] = f"{ap:.2f}"
            self._write()

    def summary(self) -> str:
        """Return the last losses and the last AP for people."""
        if not self._rows:
            return ""
        parts = [f"{name} {value}" for name, value in zip(LOSSES, self._rows[-1][1:5], strict=True)]
        measured = [row[-1] for row in self._rows if row[-1]]
        return " ".join(parts + [f"AP {value}" for value in measured[-1:]])

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue())


class Reporter:
    """A progress bar on a terminal, else a line now and then; and the time that training waits for pictures.

    Args:
        steps: Of the whole training.
        done: Steps that an earlier run did.
    """

    def __init__(self, steps: int, done: int) -> None:
        self._console = console_for_people()
        self._steps, self._done, self._rows = steps, done, 0
        self._start, self._waited = time.monotonic(), 0.0
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[summary]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, summary="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def waiting(self) -> float:
        """Return the part of the time since the start that was spent waiting for pictures."""
        return self._waited / max(time.monotonic() - self._start, 1e-9)

    def waited(self, seconds: float) -> None:
        """Count time in which the next batch was not there yet."""
        self._waited += seconds

    def step(self, step: int, summary: str, *, row: bool) -> None:
        """Show how far training is; ``row`` says that ``summary`` is new."""
        text = f"{summary} waiting {self.waiting:.1%}"
        self._bar.update(self._task, completed=step, summary=text)
        self._rows += row
        if row and not self._console.is_terminal and (self._rows % LINE_EVERY == 1 or step == self._steps):
            left = (time.monotonic() - self._start) / (step - self._done) * (self._steps - step)
            self.say(f"step {step} of {self._steps}, {left / 60:.1f} min left: {text}")

    def say(self, text: str) -> None:
        """Print a line for people, as it is."""
        self._console.print(text, soft_wrap=True, markup=False)


def plot_log(log: Path, picture: Path) -> None:
    """Draw the losses and the AP of a log as PNG.

    Raises:
        OutputError: matplotlib is not installed, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise OutputError(f"no plot: matplotlib is not installed; pip install matplotlib, then plot {log}") from error
    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    left = figure.subplots()
    steps = [int(row["step"]) for row in rows]
    for name in LOSSES:
        left.plot(
            steps, [float(row[name]) for row in rows], label=name, linewidth=1, marker="." if len(rows) < 3 else ""
        )
    left.set(xlabel="step", ylabel="weighted loss", yscale="log")
    measured = [(int(row["step"]), float(row["ap"])) for row in rows if row["ap"]]
    if measured:
        right = left.twinx()
        right.plot(*zip(*measured, strict=True), "k.-", label="AP")
        right.set(ylabel="validation AP, points", ylim=(0, 100))
    figure.legend(loc="outside upper center", ncols=5)
    with open_atomically(picture) as file:
        figure.savefig(file, format="png", dpi=120)


def detached(losses: Losses) -> Losses:
    """Return the losses without what made them."""
    return type(losses)(*(torch.Tensor.detach(part) for part in losses))

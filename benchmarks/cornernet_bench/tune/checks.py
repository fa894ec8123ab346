"""What is looked at before a tuning begins, and what makes its figures doubtful."""

from __future__ import annotations

import tempfile
import warnings
from typing import TYPE_CHECKING

from cornernet_bench.coco.dataset import category_ids_of, read_coco
from cornernet_bench.measuring.cautions import BY_CPU_TIME, SPREAD_PERCENT, load_doubts
from cornernet_export.checkpoint import load_checkpoint
from cornernet_runtime.bundle.manifest import MANIFEST_NAME
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, FrameError, OutputError
from cornernet_runtime.files import make_folder
from cornernet_runtime.machine import core_count
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_bench.tune.request import TuneRequest
    from cornernet_bench.tune.search import Mix

REPORT_NAME = "tune.json"
FEWEST_ROUNDS = 10  # of fewer the interval of a median is all of their range, or no interval at all
FEWEST_PICTURES = 100  # of fewer AP is known to about a point only


def check_timing(request: TuneRequest) -> None:
    """Raise CornerNetError where times would say nothing."""
    if request.cpu_time and request.threads != 1:
        raise CornerNetError("--cpu-time adds up all threads: add --threads 1")
    if request.rounds < FEWEST_ROUNDS:
        raise CornerNetError(
            f"--rounds: expected at least {FEWEST_ROUNDS} to tell a gain from noise, got {request.rounds}"
        )


def check_output(request: TuneRequest) -> None:
    """Raise OutputError unless the folder is new, empty, an unfinished tuning, or a bundle that may be replaced."""
    output = request.output
    try:
        found = {path.name for path in output.iterdir()} if output.exists() else set()
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    if MANIFEST_NAME in found and not request.force:
        raise OutputError(f"{output} is a bundle: choose another folder, or add --force to replace it")
    if found - {REPORT_NAME} and MANIFEST_NAME not in found:
        raise OutputError(f"{output} holds other files: choose another folder")
    if output.resolve() in request.checkpoint.resolve().parents:
        raise OutputError(f"{output} holds the checkpoint itself: choose another folder")


def check_writable(output: Path) -> None:
    """Make the folder; raise OutputError unless files and folders can be made in it and beside it."""
    try:
        for folder in (make_folder(output), output.absolute().parent):
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error


def check_data(request: TuneRequest) -> None:
    """Raise unless AP can be measured; with few pictures it is with a ``CornerNetWarning``.

    Raises:
        FrameError: Annotations cannot be read, a picture is missing, a class of the checkpoint is no category, or there
            is no object of them.
        CheckpointError: The checkpoint cannot be used.
    """
    data = read_coco(request.annotations, request.images)
    rows = [row for row in data.truth.dataset["annotations"] if not row["iscrowd"]]
    if not rows:
        raise FrameError(f"{request.annotations}: there is no object to find, and so no AP to keep; annotate some")
    names = load_checkpoint(request.checkpoint).spec.class_names
    ids = category_ids_of(data, names, request.annotations, request.images)
    if not any(row["category_id"] in ids for row in rows):
        raise FrameError(f"{request.annotations}: there is no object of {', '.join(names)}, which the checkpoint finds")
    if len(data.paths) < FEWEST_PICTURES:
        warnings.warn(
            f"AP of {count_of(len(data.paths), 'picture')} only: with fewer than {FEWEST_PICTURES} the budget of "
            f"{request.max_ap_drop:g} points may be within its noise; give --annotations of some hundred",
            CornerNetWarning,
            stacklevel=2,
        )


def doubts(load: float, best: Mix, request: TuneRequest) -> tuple[str, ...]:
    """Return a line for each thing that a reader of the times should know first.

    Args:
        load: Processes that ran or waited in the minute before the tuning.
        best: What was chosen.
        request: How it was timed.
    """
    advice = "" if request.cpu_time else BY_CPU_TIME
    lines = load_doubts(load, core_count(), advice)
    if (spread := best.times_fp32.spread_percent) > SPREAD_PERCENT:
        lines.append(
            f"how many times as fast the best mix is spreads by {spread:.0f} % over the rounds: something else uses "
            f"the machine, or its clocks change{advice and f'; {advice}'}"
        )
    return tuple(lines)

"""What the self-test does with a detector: compare its detections with another's, time it, watch its memory."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.measuring.timing import PERCENTILES
from cornernet_export.verification.matching import FP16, FP32, Tolerance, View, compare_detections
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.pictures import find_pictures, read_picture
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_bench.selftest.notes import Notes
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.pipeline import GpuPipeline

# Outputs are not compared. Float32 in another order:
SAME = Tolerance(output=0, score=2e-3, iou=0.95, matched=0.995, tie=FP32.tie)
SAME_AP = 0.2  # points that AP may differ, in float16 too; on 200 scenes one object is worth about 0.08
# In float16's emulation 99.1 % of cornernet-tiny's detections match without regard to near ties.
HALF = Tolerance(output=0, score=2e-2, iou=0.95, matched=0.98, tie=FP16.tie)
MOST_GROWTH_MIB = 16  # over all timed frames; allocators and drivers take some on the way
STAGE_RUNS = 20
TELL_SECONDS = 10
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Contest:
    """A detector, and that of the stage before, which it has to equal.

    Attributes:
        network: What runs it, for people.
        candidate: The detector.
        reference: The other; None where there is none to be had.
        against: What runs the other, for people; or why there is none.
        half: Whether they differ in float16, which allows more.
        gpu: Whether the candidate runs on a GPU.
        undone: What of the model is not tried here, and why.
    """

    network: str
    candidate: Detector
    reference: Detector | None
    against: str
    half: bool = False
    gpu: bool = False
    undone: tuple[str, ...] = ()


def compare(contest: Contest, images: Path, annotations: Path | None, notes: Notes) -> tuple[list[str], list[str]]:
    """Compare detections of pictures one by one, and AP where the pictures show what the model knows.

    Returns:
        What does not hold, and what could not be compared.
    """
    skipped = _why_no_ap(contest, annotations)
    notes.keep(pictures=0, **({} if skipped is None else {"ap_skipped": skipped}))
    if contest.reference is None:
        return [], [f"nothing was compared: {contest.against}"]
    paths = find_pictures([str(images)])
    pictures = count_of(len(paths), "picture")
    notes.say(f"detecting on {pictures} with both")
    tolerance = HALF if contest.half else SAME
    total = None
    for path in paths:
        picture = read_picture(path)
        both = contest.reference(picture), contest.candidate(picture)
        one = compare_detections(*both, contest.network, pictures, tolerance)
        if one.extra or one.matched < one.reference:
            view = View.of_frame(contest.reference, contest.candidate, picture, tolerance.tie)
            one = compare_detections(*both, contest.network, pictures, tolerance, view)
        total = one if total is None else total + one
    if total is None:
        raise AssertionError("a folder without pictures is refused")
    notes.keep(pictures=len(paths), **{f"detections_{name}": getattr(total, name) for name in _COUNTS})
    if total.reference == total.extra == total.extra_near_ties == 0:
        nothing = f"no detection of 0.1 or more on {pictures}"
        if _drawn(contest, annotations):
            return [f"{nothing}, which show what the model knows"], []
        return [], [f"nothing was compared: {nothing}: name a folder of fitting ones with --images"]
    problems = []
    if not total.passed:
        ties = total.near_ties + total.extra_near_ties
        problems.append(
            f"{total.matched} of {total.reference} detections matched and {total.extra} extra, "
            f"{tolerance.matched:.1%} required" + (f", beside {ties} near ties" if ties else "")
        )
    if skipped is None and annotations is not None:
        problems += _compare_ap(contest.reference, contest.candidate, images, annotations, notes)
    return problems, []


_COUNTS = ("reference", "matched", "extra", "near_ties", "extra_near_ties")


def _why_no_ap(contest: Contest, annotations: Path | None) -> str | None:
    """Return why there is no AP to compare, or None."""
    if contest.reference is None:
        return contest.against
    if annotations is None:
        return "the pictures of --images have no annotations"
    if not _drawn(contest, annotations):
        return "the drawn scenes are of other classes than the model's"
    if util.find_spec("pycocotools") is None:
        return 'pycocotools is not installed: pip install ".[bench]"'
    return None


def _drawn(contest: Contest, annotations: Path | None) -> bool:
    """Return whether the pictures are drawn scenes, of the model's classes."""
    if annotations is None:
        return False
    known = {row["name"] for row in json.loads(annotations.read_text(encoding="utf-8"))["categories"]}
    return set(contest.candidate.class_names) <= known


def _compare_ap(reference: Detector, candidate: Detector, images: Path, annotations: Path, notes: Notes) -> list[str]:
    from cornernet_bench.accuracy.evaluate import evaluate  # noqa: PLC0415 - an extra

    notes.say("average precision of both")
    before, after = (evaluate(one, annotations, images).metrics["ap"] for one in (reference, candidate))
    notes.keep(ap_reference=before, ap=after, ap_difference=after - before)
    return [] if abs(after - before) <= SAME_AP else [f"AP {after:.2f} instead of {before:.2f}"]


def measure(contest: Contest, images: Path, count: int, notes: Notes) -> list[str]:
    """Time frames one by one, from the host's memory to detections, and watch memory meanwhile.

    Returns:
        What does not hold: memory that grows.
    """
    frames = [read_picture(path) for path in find_pictures([str(images)])]
    detector = contest.candidate
    for frame in frames:
        detector(frame)  # of every size once
    if detector.pipeline is not None:
        notes.say("timing the stages")
        notes.keep(stages_ms=_stages(detector.pipeline, frames[0]))
    device = CudaDevice() if contest.gpu else None
    if device is not None:
        notes.keep(gpu=device.name)
    gc.collect()
    before = _memory(device)
    notes.say(f"timing {count_of(count, 'frame')}")
    times = _time(detector, frames, count, notes)
    after = _memory(device)
    values = np.percentile(times, PERCENTILES)
    notes.keep(
        timed_frames=count,
        **{f"p{number}_ms": round(float(value), 3) for number, value in zip(PERCENTILES, values, strict=True)},
        **{f"{name}_before_mib": round(value, 1) for name, value in before.items()},
        **{f"{name}_after_mib": round(value, 1) for name, value in after.items()},
    )
    timed = count_of(count, "frame")
    return [
        f"{name} grew by {after[name] - before[name]:.0f} MiB over {timed}, {MOST_GROWTH_MIB} at most"
        for name in before
        if after[name] - before[name] > MOST_GROWTH_MIB
    ]


def _time(detector: Detector, frames: list[NDArray[np.uint8]], count: int, notes: Notes) -> NDArray[np.float64]:
    """Return milliseconds [count]."""
    times = np.empty(count)
    told = time.perf_counter()
    for index in range(count):
        start = time.perf_counter()
        detector(frames[index % len(frames)])
        end = time.perf_counter()
        times[index] = 1000 * (end - start)
        if end - told > TELL_SECONDS:
            notes.say(f"{index + 1} of {count} frames")
            told = end
    return times


def _stages(pipeline: GpuPipeline, frame: NDArray[np.uint8]) -> dict[str, float]:
    """Return the median time of each stage on the GPU, milliseconds."""
    runs = [pipeline.time_stages([frame]) for _ in range(STAGE_RUNS)]
    return {name: round(float(np.median([run[name] for run in runs])), 4) for name in runs[0]}


def _memory(device: CudaDevice | None) -> dict[str, float]:
    """Return MiB in use, of this process on the host and of all on the GPU, as far as the system tells."""
    used: dict[str, float] = {}
    with contextlib.suppress(OSError):  # only Linux has the file
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        used["host_memory"] = pages * os.sysconf("SC_PAGE_SIZE") / MIB
    if device is not None:
        _, free, total = device.driver.cuMemGetInfo()
        used["gpu_memory"] = (int(total) - int(free)) / MIB
    return used

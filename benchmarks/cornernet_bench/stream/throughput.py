"""Throughput from file to file: the stages apart, one frame after the other, and as a stream, in turns.

A stage apart runs over all its frames with nothing else in the process. Its cost is the CPU time of the whole process,
so that threads which a codec starts are counted with it; the network has one thread, which does not spin.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.measuring.intervals import Ratio
from cornernet_bench.measuring.machine import thread_limit
from cornernet_bench.measuring.timing import StageClock, summarise, take_turns
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.runs import runs_on_gpu
from cornernet_bench.stream.clip import FirstFrames
from cornernet_bench.stream.report import Stage, Throughput, Way
from cornernet_runtime.video.stream import LARGEST_BATCH, FrameResult
from cornernet_runtime.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cornernet_bench.stream.report import OnProgress, StreamRequest
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.video.frame import VideoFrame

READING, DETECTING, OTHER, WRITING, LOOP, STREAM = "reading", "detecting", "other", "writing", "loop", "stream"
CORES = "cores"
CLOCKS = ("wall", "cpu")
TOLERANCE_PX, TOLERANCE_SCORE = 0.01, 1e-4  # of frames that are run together


def measure_throughput(work: Work, cores: int, rounds: int, on_progress: OnProgress) -> tuple[Throughput | None, bool]:
    """Measure stages, loop and stream in turns.

    Args:
        work: What to do.
        cores: Among which the work is shared at best.
        rounds: Of each.
        on_progress: Told of each part of a round.

    Returns:
        What complete rounds came to, None without one, and whether an interrupt ended it.

    Raises:
        CornerNetError: A part fails.
    """
    parts = {READING: work.read, DETECTING: work.detect, WRITING: work.write, LOOP: work.loop, STREAM: work.stream}
    samples: dict[str, list[Costs]] = {name: [] for name in parts}
    partial = False
    try:
        on_progress("throughput: warming up", 0, rounds)
        work.warm_up()
        for number, name in take_turns(list(parts), rounds):
            on_progress(f"throughput: {name}", number, rounds)
            samples[name].append(parts[name]())
    except KeyboardInterrupt:
        partial = True
    turns = zip(*samples.values(), strict=False)  # an interrupted one is left out
    complete = [dict(chain.from_iterable(part.items() for part in turn)) for turn in turns]
    return (throughput_of(complete, work, cores) if complete else None), partial


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frame took on average, milliseconds.

    Attributes:
        wall: Time that passed.
        cpu: CPU time of the process.
        whole: As ``Stage.whole_ms``; 0 where frames are shared out.
    """

    wall: float
    cpu: float
    whole: float = 0.0


Costs = dict[str, Cost]


class Work:
    """What takes turns: each method goes once through the frames, and returns what a frame took.

    Args:
        request: What to measure.
        detector: For loop and stream.
        alone: Of the same model, for the stages apart; with one thread on the CPU.
        clip: File that is read.
        frames: Its first frames, in memory; at least one.
        folder: Where annotated clips are written.

    Attributes:
        count: Frames of the clip.
        held: Frames in memory.
        compared: Frames of streams so far.
        equal: Of them, those with the detections of the loop.
        tolerance_px: As ``Throughput.tolerance_px``.
    """

    def __init__(
        self,
        request: StreamRequest,
        detector: Detector,
        alone: Detector,
        clip: Path,
        frames: Sequence[VideoFrame],
        folder: Path,
    ) -> None:
        self.count, self.held, self.compared, self.equal = 0, len(frames), 0, 0
        self._batch = min(request.batch or LARGEST_BATCH, detector.backend.max_batch)
        self.tolerance_px = 0.0 if self._batch == 1 else TOLERANCE_PX
        self._request, self._detector, self._alone = request, detector, alone
        self._clip, self._frames, self._target = clip, frames, folder / "annotated.mp4"
        self._found: list[Detections] = []

    def warm_up(self) -> None:
        """Run the loop, for the detections that others are compared with and draw, and the network that runs alone."""
        self._found = self._loop()
        self.count = len(self._found)
        self._alone.batch([self._frames[0].image] * self._batch)

    def read(self) -> Costs:
        """Read the clip."""
        return {READING: cost_of(lambda: _drain(self._source()), self.count)}

    def detect(self) -> Costs:
        """Detect in the frames that are held, each step timed; on a GPU as one."""
        wall, cpu = StageClock(), StageClock(now=time.process_time)

        @contextmanager
        def both(stage: str) -> Iterator[None]:
            with wall(stage), cpu(stage):
                yield

        self._alone.stages = both
        with thread_limit(1, torch=self._request.subject.model.suffix in CHECKPOINTS):
            total = cost_of(self._detect_alone, self.held)
        if runs_on_gpu(self._alone):
            return {DETECTING: replace(total, whole=total.wall)}
        steps = {name: Cost(wall.times[name] / self.held, cpu.times[name] / self.held) for name in wall.times}
        rest = Cost(*(getattr(total, clock) - sum(getattr(step, clock) for step in steps.values()) for clock in CLOCKS))
        return {**steps, OTHER: rest}

    def write(self) -> Costs:
        """Draw and encode the frames that are held, with what the loop found in them."""
        results = (_result(*pair) for pair in zip(self._frames, self._found, strict=False))
        return {WRITING: cost_of(lambda: _write(results, self._target), self.held)}

    def loop(self) -> Costs:
        """Go from file to file, one frame after the other."""
        return {LOOP: cost_of(self._loop, self.count)}

    def stream(self) -> Costs:
        """Go from file to file by ``Detector.stream``, and compare what it finds with the loop's."""
        found: list[Detections] = []
        cost = cost_of(lambda: found.extend(self._stream()), self.count)
        self.compared += max(len(found), self.count)
        pairs = zip(found, self._found, strict=False)
        self.equal += sum(same_detections(one, other, self.tolerance_px) for one, other in pairs)
        return {STREAM: cost}

    def _source(self) -> FirstFrames:
        return FirstFrames(self._clip, self._request.clip_frames)

    def _detect_alone(self) -> None:
        images = [frame.image for frame in self._frames]
        for start in range(0, len(images), self._batch):
            self._alone.batch(images[start : start + self._batch])

    def _loop(self) -> list[Detections]:
        with closing(self._source()) as source:
            return _write((_result(frame, self._detector(frame.image)) for frame in source), self._target)

    def _stream(self) -> list[Detections]:
        options = {"workers": self._request.workers, "batch": self._request.batch}
        with self._detector.stream(self._source(), "every", **options) as stream:
            return _write(stream, self._target)


def throughput_of(rounds: Sequence[Costs], work: Work, cores: int) -> Throughput:
    """Return what complete rounds of some work, at least one, come to on so many cores."""
    stages = {
        name: Stage(
            cpu=summarise([costs[name].cpu for costs in rounds]),
            wall=summarise([costs[name].wall for costs in rounds]),
            whole_ms=median(costs[name].whole for costs in rounds) or None,
        )
        for name in rounds[0]
        if name not in (LOOP, STREAM)
    }
    parts = [{name: (costs[name].cpu, costs[name].whole) for name in stages} for costs in rounds]
    ideal, limit = ideal_of({name: (stage.cpu.p50_ms, stage.whole_ms or 0.0) for name, stage in stages.items()}, cores)
    streamed = [costs[STREAM].wall for costs in rounds]
    return Throughput(
        rounds=len(rounds),
        frames=work.count,
        held=work.held,
        cores=cores,
        stages=stages,
        loop=way_of([costs[LOOP] for costs in rounds]),
        stream=way_of([costs[STREAM] for costs in rounds]),
        ideal_fps=1000 / ideal,
        limit=limit,
        of_ideal=Ratio.of([ideal_of(part, cores)[0] for part in parts], streamed),
        of_loop=Ratio.of([costs[LOOP].wall for costs in rounds], streamed),
        compared=work.compared,
        equal=work.equal,
        tolerance_px=work.tolerance_px,
    )


def throughput_failures(throughput: Throughput) -> list[str]:
    """Return a line if a stream found anything else than the loop."""
    compared, equal = throughput.compared, throughput.equal
    if equal == compared:
        return []
    return [f"throughput: expected detections as without a stream in {compared} frames, got {equal} that are equal"]


def ideal_of(stages: Mapping[str, tuple[float, float]], cores: int) -> tuple[float, str]:
    """Return the least time of a frame, and what sets it: ``cores``, or a stage.

    Args:
        stages: By name, CPU time of a frame, and what of it cannot be shared out.
        cores: That share all work.
    """
    bounds = {CORES: sum(cpu for cpu, _ in stages.values()) / cores} | {name: one for name, (_, one) in stages.items()}
    limit = max(bounds, key=lambda name: bounds[name])
    return bounds[limit], limit


def same_detections(found: Detections, expected: Detections, tolerance_px: float) -> bool:
    """Return whether two have the same labels, boxes to some pixels, and scores, exactly where boxes are."""
    if not np.array_equal(found.labels, expected.labels):
        return False
    score = TOLERANCE_SCORE if tolerance_px else 0.0
    pairs = ((found.boxes, expected.boxes, tolerance_px), (found.scores, expected.scores, score))
    return all(np.allclose(one, other, rtol=0, atol=most) for one, other, most in pairs)


def way_of(costs: Sequence[Cost]) -> Way:
    """Return what a frame took in some rounds, at least one."""
    cpu, wall = (summarise([getattr(cost, clock) for cost in costs]) for clock in ("cpu", "wall"))
    return Way(cpu, wall, 1000 / wall.p50_ms)


def cost_of(work: Callable[[], object], frames: int) -> Cost:
    """Run something and return what a frame of it took."""
    clocks = (time.perf_counter, time.process_time, time.thread_time)
    starts = [clock() for clock in clocks]
    work()
    return Cost(*((clock() - start) * 1000 / frames for clock, start in zip(clocks, starts, strict=True)))


def _drain(source: FirstFrames) -> None:
    with closing(source):
        deque(source, maxlen=0)


def _result(frame: VideoFrame, detections: Detections) -> FrameResult:
    return FrameResult(frame, detections, 0.0, 0.0)


def _write(results: Iterable[FrameResult], path: Path) -> list[Detections]:
    """Draw and encode results, and return what was found."""
    writer, found = VideoWriter(path), []
    try:
        for result in results:
            writer.write(result)
            found.append(result.detections)
    except BaseException:
        writer.abort()
        raise
    writer.close()
    return found

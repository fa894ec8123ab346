"""Video streams measured: many small frames for leaks, a live source for lag, and throughput from file to file."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.measuring.cautions import SPREAD_PERCENT, load_doubts
from cornernet_bench.measuring.machine import describe_machine, gpu_state, load_average, thread_limit
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.opening import first_calls
from cornernet_bench.models.runs import runs_on_gpu
from cornernet_bench.stream.clip import draw_clip, first_frames
from cornernet_bench.stream.live import live_failures, measure_live
from cornernet_bench.stream.report import StreamReport
from cornernet_bench.stream.soak import check_system, measure_soak, soak_failures
from cornernet_bench.stream.sources import SourcesWork, measure_sources, sources_failures
from cornernet_bench.stream.throughput import Work, measure_throughput, throughput_failures
from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import CornerNetError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.stream.report import Live, OnProgress, Soak, Sources, StreamRequest, Throughput
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.video.frame import VideoFrame

HELD_BYTES = 2**29  # of frames in memory, at most
WAITED = 1.1  # times its CPU time that a thread which never waits may take before others must have had its core
NETWORK = "network"


def measure(request: StreamRequest, on_progress: OnProgress = lambda *_: None) -> StreamReport:
    """Open a model and measure it in streams; an interrupt or an error ends it, and what was measured is kept.

    Raises:
        CornerNetError: The model or the video cannot be opened, or the first part fails.
        KeyboardInterrupt: It came before anything was measured.
    """
    load, gpu = load_average(), gpu_state()
    if not (request.soak_frames or request.live_fps or request.sources or request.rounds):
        raise CornerNetError("expected something to measure, got --rounds 0 --frames 0; add --live FPS or --sources N")
    if request.soak_frames:
        check_system()
    subject = request.subject
    with ExitStack() as stack:
        folder = stack.enter_context(_folder_for_clips(request.folder))
        stack.enter_context(thread_limit(subject.threads, torch=subject.model.suffix in CHECKPOINTS))
        if request.video is None:
            on_progress("drawing the clip", 0, 0)
        path = request.video or draw_clip(folder / "drawn.mp4", request.clip_frames, request.frame_size)
        (first,) = first_frames(path, 1)
        on_progress("opening the model", 0, 0)
        start = time.perf_counter()
        detector = stack.enter_context(open_detector(subject))
        opened = first_calls(subject, detector, [first.image], time.perf_counter() - start, gpu)
        parts = _Parts()
        try:
            _measure_parts(parts, request, detector, path, folder, on_progress)
        except KeyboardInterrupt:
            parts.partial = True
        except CornerNetError as error:
            if not parts.measured:
                raise
            parts.problem = str(error)
        if not parts.measured:
            raise KeyboardInterrupt
        machine = describe_machine(load, subject.threads, {detector.backend.name})
        warnings = doubts(parts.throughput, parts.live, machine, on_gpu=runs_on_gpu(detector))
    return StreamReport(
        partial=parts.partial,
        model=opened,
        machine=machine,
        video="drawn" if request.video is None else str(request.video),
        frame_size=first.image.shape[:2],
        throughput=parts.throughput,
        live=parts.live,
        sources=parts.sources,
        soak=parts.soak,
        failures=tuple(_failures(parts)),
        warnings=tuple(warnings),
    )


@dataclass(slots=True)
class _Parts:
    """What was measured so far, whether an interrupt ended it, and which error did."""

    soak: Soak | None = None
    live: Live | None = None
    sources: Sources | None = None
    throughput: Throughput | None = None
    partial: bool = False
    problem: str | None = None

    @property
    def measured(self) -> bool:
        """Whether there is anything to report."""
        return any(part is not None for part in (self.soak, self.live, self.sources, self.throughput))


def _measure_parts(
    parts: _Parts,
    request: StreamRequest,
    detector: Detector,
    path: Path,
    folder: Path,
    on_progress: OnProgress,
) -> None:
    """Measure what is asked for, until an interrupt.

    The soak comes first, for what other parts leave in the allocator would blur it.
    """
    if request.soak_frames:
        parts.soak, parts.partial = measure_soak(detector, folder, request.soak_frames, on_progress)
    if parts.partial or not (request.live_fps or request.sources or request.rounds):
        return
    on_progress("reading the clip", 0, 0)
    frames = hold(path, request.clip_frames)
    if request.live_fps:
        parts.live, parts.partial = measure_live(detector, frames, request.live_fps, request.live_frames, on_progress)
    if request.sources and not parts.partial:
        sources = SourcesWork(request, detector, frames)
        parts.sources, parts.partial = measure_sources(sources, request.rounds or 1, on_progress)
    if request.rounds and not parts.partial:
        with ExitStack() as stack:
            alone = detector
            if not runs_on_gpu(detector):
                alone = stack.enter_context(open_detector(replace(request.subject, threads=1)))
            work = Work(request, detector, alone, path, frames, folder)
            parts.throughput, parts.partial = measure_throughput(work, default_threads(), request.rounds, on_progress)


def _failures(parts: _Parts) -> Iterator[str]:
    if parts.problem is not None:
        yield f"not measured to the end: {parts.problem}"
    if parts.soak is not None:
        yield from soak_failures(parts.soak)
    if parts.live is not None:
        yield from live_failures(parts.live)
    if parts.sources is not None:
        yield from sources_failures(parts.sources)
    if parts.throughput is not None:
        yield from throughput_failures(parts.throughput)


def doubts(
    throughput: Throughput | None, live: Live | None, machine: Machine, *, on_gpu: bool = False
) -> Iterator[str]:
    """Yield a line for each thing that a reader of the figures should know first.

    Args:
        throughput: If it was measured.
        live: If it was measured.
        machine: They were measured on.
        on_gpu: Whether the network ran on a GPU, whose threads wait.
    """
    yield from load_doubts(machine.load_average, machine.cores)
    if throughput is not None:
        for name, way in (("the loop", throughput.loop), ("the stream", throughput.stream)):
            if way.wall.spread_percent > SPREAD_PERCENT:
                yield (
                    f"times of {name} spread by {way.wall.spread_percent:.0f} % of their median: something else uses "
                    "the machine, or its clocks change; frames a second may be off by part of that"
                )
        network = throughput.stages.get(NETWORK)
        if network is not None and not on_gpu and network.wall.p50_ms > WAITED * network.cpu.p50_ms:
            yield (
                f"the network's one thread had a core for {network.cpu.p50_ms / network.wall.p50_ms:.0%} of its time: "
                "something else uses the machine, and no stream can reach what the stages allow"
            )
    if live is not None and live.late.p99_ms > 500 / live.source_fps:
        yield (
            f"the live source itself was up to {live.late.p99_ms:.0f} ms late (p99): something else uses the machine, "
            "or --live asks for more than it can give"
        )


def hold(path: Path, count: int) -> list[VideoFrame]:
    """Return the first frames of a file, as many as may be held in memory, and one at least."""
    size = first_frames(path, 1)[0].image.nbytes
    return first_frames(path, max(1, min(count, HELD_BYTES // size)))


@contextmanager
def _folder_for_clips(parent: Path | None) -> Iterator[Path]:
    """Make a folder, by default among the system's temporary ones, and remove it in the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="cornernet-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        where = "the system's temporary folder" if parent is None else parent
        raise OutputError(f"cannot write in {where}: {error.strerror or error}; name another --folder") from error
    with folder as name:
        yield Path(name)

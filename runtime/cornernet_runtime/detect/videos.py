"""Detection in videos and cameras: the work behind ``cornernet-detect`` there."""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.detect.live import detect_live
from cornernet_runtime.detect.recording import Recording, ending
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import FrameError, OutputError, VideoError
from cornernet_runtime.video.addresses import file_stem, is_address, is_camera, is_live, is_live_source
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.multi import WORKERS
from cornernet_runtime.video.network import NetworkStream
from cornernet_runtime.video.reconnect import Reconnection
from cornernet_runtime.video.sinks import JsonLines, Sink
from cornernet_runtime.video.sources import Camera, Part

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from cornernet_runtime.errors import CornerNetError
    from cornernet_runtime.video.frame import Source
    from cornernet_runtime.video.statistics import StreamStatistics
    from cornernet_runtime.video.stream import FrameResult

START_WITHIN = 15.0  # seconds; who types a wrong address wants to be told


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """What to detect in, and what to write.

    Attributes:
        model: Bundle folder or ``.onnx`` file.
        sources: Video files, globs of them, addresses (URLs) of streams, and indices of cameras.
        backend: What runs the network; None is the best here.
        output: Folder for annotated videos, or None.
        json_lines: File for one JSON object a line and frame, ``-`` for standard output, or None.
        score: Least score of what is reported and drawn.
        flip: Whether to look at each frame's mirror image too.
        scales: At which to look at each frame.
        every: Of so many frames one is looked at and written.
        start: Seconds that are left out at the beginning.
        duration: Seconds after which to stop, or None.
    """

    model: str
    sources: tuple[str, ...]
    backend: str | None = None
    output: Path | None = None
    json_lines: Path | None = None
    score: float = 0.3
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    every: int = 1
    start: float = 0.0
    duration: float | None = None


class Watched(Protocol):
    """A stream of one source, or one source of a stream of many."""

    @property
    def source(self) -> Source:
        """That gives the frames."""

    @property
    def name(self) -> str:
        """That its results have."""

    @property
    def statistics(self) -> StreamStatistics:
        """How it fares, at any time and from any thread."""


@dataclass(slots=True)
class VideoSummary:
    """What was found in one video, stream or camera.

    Attributes:
        source: Its name.
        statistics: Of the stream, at its end.
        counts: Objects by class name, over all frames.
        written: The annotated video, if one was asked for and there were frames.
    """

    source: str
    statistics: StreamStatistics
    counts: Counter[str]
    written: Path | None


@dataclass(slots=True)
class VideosSummary:
    """What was found in all of them.

    Attributes:
        rows: One a source that could be opened.
        failed: Sources that could not be opened, or not be read to their end.
        interrupted: Whether the user ended it.
        scales: At which the model looked at each frame.
    """

    rows: list[VideoSummary] = field(default_factory=list)
    failed: int = 0
    interrupted: bool = False
    scales: tuple[float, ...] = (1.0,)


def detect_videos(
    request: VideoRequest,
    watch: Callable[[Watched, FrameResult], None] = lambda *_: None,
    on_problem: Callable[[str], None] = lambda _: None,
    on_begin: Callable[..., None] = lambda *_: None,
) -> VideosSummary:
    """Detect objects in videos, streams and cameras; one that fails is named, counted and left.

    Files are done one after the other. Several that are live are done at the same time, after the files.
    What was written until a failure or an interrupt is kept.

    Args:
        request: What to do.
        watch: Shown each result, and the stream that gave it.
        on_problem: Told of each source that fails.
        on_begin: Told of each stream, or of all that begin at the same time, before the first result.

    Raises:
        OutputError: A result cannot be written, or would overwrite a source.
        CornerNetError: The model cannot be opened.
    """
    sources = [name for source in request.sources for name in _expand(source)]
    targets = dict(enumerate(_targets(sources, request.output)))
    live = [number for number, source in enumerate(sources) if is_live_source(source)]
    together = live if len(live) > 1 else []
    summary = VideosSummary()
    # Workers share the cores: a network on all of them would wait for those that the others use.
    threads = None if len(live) == len(sources) == 1 else max(1, default_threads() // WORKERS)
    model, backend, flip, scales = request.model, request.backend, request.flip, request.scales
    with Detector.open(model, backend, flip=flip, scales=scales, threads=threads) as detector:
        summary.scales = detector.scales
        shared: list[Sink] = [] if request.json_lines is None else [JsonLines(request.json_lines)]
        run = _Run(request, detector, shared, summary, watch, on_problem, on_begin)
        try:
            with ending(shared):
                for number, source in enumerate(sources):
                    if number not in together:
                        run.one(source, targets[number])
                if together:
                    run.several([(sources[number], targets[number]) for number in together])
        except KeyboardInterrupt:
            summary.interrupted = True
    return summary


@dataclass(frozen=True, slots=True)
class _Run:
    """The work on one source, or on several at the same time, whose rows go into the summary however they end."""

    request: VideoRequest
    detector: Detector
    shared: Sequence[Sink]
    summary: VideosSummary
    watch: Callable[[Watched, FrameResult], None]
    on_problem: Callable[[str], None]
    on_begin: Callable[..., None]

    def one(self, source: str, target: Path | None) -> None:
        recording = self._recording(source, target)
        try:
            with self.detector.stream(self._open(source)) as stream:
                try:
                    self.on_begin(stream)
                    with ending([recording], whole=self.request.duration is None):
                        for found in stream:
                            recording.take(found, partial(self.watch, stream))
                finally:
                    stream.close()
                    self._note(stream, recording)
            recording.warn()
        except (VideoError, FrameError) as error:
            self._fail(recording, error)

    def several(self, named: Sequence[tuple[str, Path | None]]) -> None:
        recordings: dict[Source, Recording] = {}
        for source, target in named:
            recording = self._recording(source, target)
            try:
                recordings[self._open(source)] = recording
            except VideoError as error:
                self._fail(recording, error)
        whole = self.request.duration is None
        detect_live(self.detector, recordings, self.watch, self.on_begin, self._fail, self._note, whole=whole)

    def _recording(self, source: str, target: Path | None) -> Recording:
        sound = None if is_camera(source) or is_address(source) else Path(source)
        # A server's clock may be hours old, which players would wait for.
        from_zero = self.request.start > 0 or is_live_source(source)
        return Recording(self.request.score, self.shared, target, sound=sound, from_zero=from_zero)

    def _open(self, source: str) -> Part:
        whole = _open(source, self.request)
        start = self.request.start if whole.live else 0.0  # a file begins there by itself
        return Part(whole, every=self.request.every, start=start, duration=self.request.duration)

    def _note(self, stream: Watched, recording: Recording) -> None:
        row = VideoSummary(stream.name, stream.statistics, recording.counts, recording.written)
        self.summary.rows.append(row)

    def _fail(self, recording: Recording, error: CornerNetError) -> None:
        self.on_problem(f"{error}{recording.kept}")
        self.summary.failed += 1


def _open(source: str, request: VideoRequest) -> Source:
    if is_camera(source):
        return Camera(int(source))
    if is_address(source) and is_live(source):
        return NetworkStream(source, Reconnection(start_within_s=START_WITHIN, give_up_after_s=request.duration))
    return VideoFile(source, request.start)


def _expand(source: str) -> list[str]:
    """Return the files of a glob; anything else as it is."""
    if is_camera(source) or is_address(source) or Path(source).exists():
        return [source]
    return sorted(glob.glob(source, recursive=True)) or [source]  # noqa: PTH207 - takes absolute ones too


def _targets(sources: Sequence[str], output: Path | None) -> list[Path | None]:
    """Return where each source's annotated video goes; equal names are numbered."""
    targets: list[Path | None] = []
    originals = {Path(source).resolve() for source in sources}
    for source in sources:
        if output is None:
            targets.append(None)
            continue
        stem = f"camera-{source}" if is_camera(source) else Path(source).stem
        stem = file_stem(source) if is_address(source) else stem
        number, target = 1, output / f"{stem}.mp4"
        while target in targets:
            number += 1
            target = output / f"{stem}-{number}.mp4"
        if target.resolve() in originals:
            raise OutputError(f"{target}: would overwrite a video to be read; choose another --output folder")
        targets.append(target)
    return targets

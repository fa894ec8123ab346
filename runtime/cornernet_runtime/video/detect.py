"""Detection in videos and cameras: the work behind ``cornernet-detect`` there."""

from __future__ import annotations

import contextlib
import glob
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetWarning, FrameError, OutputError, VideoError
from cornernet_runtime.interrupt import Interrupt
from cornernet_runtime.video.addresses import file_stem, is_address, is_live
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.network import NetworkStream
from cornernet_runtime.video.reconnect import Reconnection
from cornernet_runtime.video.sinks import JsonLines, Sink, part_of
from cornernet_runtime.video.sources import Camera, Part
from cornernet_runtime.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cornernet_runtime.video.frame import Source
    from cornernet_runtime.video.statistics import StreamStatistics
    from cornernet_runtime.video.stream import DetectionStream, FrameResult

START_WITHIN = 15.0  # seconds; who types a wrong address wants to be told
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "h264", "hevc", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv", "y4m"),
    )
)


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


def are_videos(sources: Sequence[str]) -> list[bool]:
    """Say of each source whether it is a video, a stream or a camera, by its name alone."""
    return [
        is_address(source)
        or Path(source).suffix.lower() in SUFFIXES
        or (_is_camera(source) and not Path(source).exists())
        for source in sources
    ]


def detect_videos(
    request: VideoRequest,
    watch: Callable[[DetectionStream, FrameResult], None] = lambda *_: None,
    on_problem: Callable[[str], None] = lambda _: None,
    on_begin: Callable[[DetectionStream], None] = lambda _: None,
) -> VideosSummary:
    """Detect objects in videos, streams and cameras, one after the other; one that fails is named, counted and left.

    What was written until a failure or an interrupt is kept.

    Args:
        request: What to do.
        watch: Shown each result, and the stream that gave it.
        on_problem: Told of each source that fails.
        on_begin: Told of each stream, before its first result.

    Raises:
        OutputError: A result cannot be written, or would overwrite a source.
        CornerNetError: The model cannot be opened.
    """
    sources = [name for source in request.sources for name in _expand(source)]
    targets = _targets(sources, request.output)
    summary = VideosSummary()
    with Detector.open(request.model, request.backend, flip=request.flip, scales=request.scales) as detector:
        summary.scales = detector.scales
        shared: list[Sink] = [] if request.json_lines is None else [JsonLines(request.json_lines)]
        try:
            with _ending(shared):
                for source, target in zip(sources, targets, strict=True):
                    try:
                        _detect(source, target, request, detector, shared, summary, watch, on_begin)
                    except (VideoError, FrameError) as error:
                        kept = "" if target is None or not part_of(target).exists() else _kept(target)
                        on_problem(f"{error}{kept}")
                        summary.failed += 1
        except KeyboardInterrupt:
            summary.interrupted = True
    return summary


def _detect(
    source: str,
    target: Path | None,
    request: VideoRequest,
    detector: Detector,
    shared: Sequence[Sink],
    summary: VideosSummary,
    watch: Callable[[DetectionStream, FrameResult], None],
    on_begin: Callable[[DetectionStream], None],
) -> None:
    """Detect in one source, whose row goes into the summary however it ends."""
    sinks, writer = list(shared), None
    if target is not None:
        sound = None if _is_camera(source) or is_address(source) else Path(source)
        writer = VideoWriter(target, sound=sound, from_zero=request.start > 0)
        sinks.append(writer)
    whole = _open(source, request)
    start = request.start if whole.live else 0.0  # a file begins there by itself
    counts: Counter[str] = Counter()
    with detector.stream(Part(whole, every=request.every, start=start, duration=request.duration)) as stream:
        try:
            on_begin(stream)
            with _ending([] if writer is None else [writer], whole=request.duration is None):
                for found in stream:
                    result = replace(found, detections=found.detections.above(request.score))
                    with Interrupt() as interrupt:  # a frame goes into all sinks, and whole, or into none
                        counts.update(name for _, _, name in result.detections)
                        for sink in sinks:
                            sink.write(result)
                    watch(stream, result)
                    if interrupt.asked:
                        raise KeyboardInterrupt
        finally:
            stream.close()
            written = target if target is not None and target.exists() else None
            summary.rows.append(VideoSummary(whole.name, stream.statistics, counts, written))
    for problem in [] if writer is None else writer.problems:
        warnings.warn(problem, CornerNetWarning, stacklevel=2)


def _open(source: str, request: VideoRequest) -> Source:
    if _is_camera(source):
        return Camera(int(source))
    if is_address(source) and is_live(source):
        return NetworkStream(source, Reconnection(start_within_s=START_WITHIN, give_up_after_s=request.duration))
    return VideoFile(source, request.start)


@contextlib.contextmanager
def _ending(sinks: Sequence[Sink], *, whole: bool = True) -> Iterator[None]:
    """End sinks as the block ends: well, before the source did, or after an error."""
    try:
        yield
    except KeyboardInterrupt:
        for sink in sinks:
            sink.close(whole=False)
        raise
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    for sink in sinks:
        sink.close(whole=whole)


def _kept(target: Path) -> str:
    return f"; the video of what was done until then is {part_of(target)}"


def _is_camera(source: str) -> bool:
    return source.isascii() and source.isdigit()


def _expand(source: str) -> list[str]:
    """Return the files of a glob; anything else as it is."""
    if _is_camera(source) or is_address(source) or Path(source).exists():
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
        stem = f"camera-{source}" if _is_camera(source) else Path(source).stem
        stem = file_stem(source) if is_address(source) else stem
        number, target = 1, output / f"{stem}.mp4"
        while target in targets:
            number += 1
            target = output / f"{stem}-{number}.mp4"
        if target.resolve() in originals:
            raise OutputError(f"{target}: would overwrite a video to be read; choose another --output folder")
        targets.append(target)
    return targets

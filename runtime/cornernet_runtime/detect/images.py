"""Detection over many pictures: the work behind ``cornernet-detect``."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.detector import Detector
from cornernet_runtime.draw import draw_corners, draw_detections
from cornernet_runtime.errors import FrameError, OutputError
from cornernet_runtime.files import make_folder
from cornernet_runtime.json_lines import json_objects, line_writer
from cornernet_runtime.pictures import SUFFIXES, find_pictures, read_picture, write_picture
from cornernet_runtime.processing.decode import sigmoid
from cornernet_runtime.processing.geometry import is_too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.processing.geometry import Placement


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """What to detect in, and what to write.

    Attributes:
        model: Bundle folder or ``.onnx`` file.
        sources: Images, folders and globs.
        backend: What runs the network; None is the best here.
        output: Folder for annotated pictures, or None.
        json_lines: File for one JSON object a line and picture, ``-`` for standard output, or None.
        score: Least score of what is reported and drawn.
        corners: Whether to draw heat maps and paired corners as well.
        flip: Whether to look at each picture's mirror image too.
        scales: At which to look at each picture.
    """

    model: str
    sources: tuple[str, ...]
    backend: str | None = None
    output: Path | None = None
    json_lines: Path | None = None
    score: float = 0.3
    corners: bool = False
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class PictureSummary:
    """What was found in one picture: its size in pixels, objects by class name, and the best score (0 without any)."""

    source: Path
    width: int
    height: int
    counts: dict[str, int]
    best: float


@dataclass(slots=True)
class ImagesSummary:
    """What was found in all pictures.

    Attributes:
        rows: One a picture that was read.
        failed: Pictures that could not be read.
        stage_ms: Mean time that a picture spent in each stage, milliseconds.
        scales: At which the model looked at each.
        scaled_down: Pictures that exceed the largest size of a model that takes them at their own resolution.
        largest_size: That size, height and width in pixels.
    """

    rows: list[PictureSummary] = field(default_factory=list)
    failed: int = 0
    stage_ms: dict[str, float] = field(default_factory=dict)
    scales: tuple[float, ...] = (1.0,)
    scaled_down: int = 0
    largest_size: tuple[int, int] = (0, 0)

    @property
    def pictures(self) -> int:
        """Pictures that were read."""
        return len(self.rows)

    @property
    def objects(self) -> int:
        """Objects found in them."""
        return sum(sum(row.counts.values()) for row in self.rows)


def _say_nothing(_: object) -> None:
    pass


def detect_pictures(
    request: DetectRequest,
    track: Callable[[Sequence[Path]], Iterable[Path]] = iter,
    on_problem: Callable[[str], None] = _say_nothing,
) -> ImagesSummary:
    """Detect objects in every picture; one that cannot be read is named, counted and skipped.

    Args:
        request: What to do.
        track: Wraps the pictures to show progress.
        on_problem: Told of each picture that cannot be read.

    Raises:
        FrameError: A source names no picture.
        OutputError: A result cannot be written, or would overwrite a source.
        CornerNetError: The model cannot be opened.
    """
    pictures = find_pictures(request.sources)
    summary, clock = ImagesSummary(), _Clock()
    with contextlib.ExitStack() as stack:
        detector = stack.enter_context(
            Detector.open(request.model, request.backend, flip=request.flip, scales=request.scales)
        )
        summary.scales, summary.largest_size = detector.scales, detector.spec.largest_size
        targets = _targets(pictures, request.output)  # makes a folder, so only once there is a detector
        lines = stack.enter_context(
            contextlib.nullcontext() if request.json_lines is None else line_writer(request.json_lines)
        )
        for path in track(pictures):
            clock.start()
            try:
                frame = read_picture(path)
            except FrameError as error:
                on_problem(str(error))
                summary.failed += 1
                continue
            clock.stop("reading")
            summary.scaled_down += is_too_large(frame.shape[:2], detector.spec, detector.scales)
            detections = detector(frame).above(request.score)
            clock.stop("detecting")
            if path in targets:
                write_picture(targets[path], _draw(frame, detections, detector if request.corners else None))
                clock.stop("drawing")
            if lines is not None:
                # A name that is no UTF-8 has lone surrogates, which JSON writes as escapes.
                lines.write(_json_line(path, frame, detections).encode(errors="backslashreplace"))
            summary.rows.append(_summarise(path, frame, detections))
    summary.stage_ms = clock.means(summary.pictures)
    return summary


def _draw(frame: NDArray[np.uint8], detections: Detections, network: Detector | None) -> NDArray[np.uint8]:
    """Draw the detections, and with a network what it saw: another run, for its maps are gone by then."""
    if network is None:
        return draw_detections(frame, detections)
    maps, placement = network.corner_maps(frame)
    tl_heat, br_heat = (heat_on_frame(heat, placement) for heat in (maps.tl_heat, maps.br_heat))
    return draw_corners(frame, tl_heat, br_heat, detections)


def heat_on_frame(heat: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Return the highest probability over the classes at each pixel of the frame.

    Args:
        heat: Logits [C, h, w] of one picture.
        placement: Where the frame lies in the input, not mirrored.

    Returns:
        float32 [H, W], 0 to 1, bilinear between cells.
    """
    height, width = placement.input_size
    whole = cv2.resize(sigmoid(heat.max(axis=0)), (width, height), interpolation=cv2.INTER_LINEAR)
    rows = slice(placement.top, placement.top + placement.visible[0])
    columns = slice(placement.left, placement.left + placement.visible[1])
    frame_height, frame_width = placement.frame_size
    resized = cv2.resize(whole[rows, columns], (frame_width, frame_height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.float32)


def _targets(pictures: Sequence[Path], output: Path | None) -> dict[Path, Path]:
    """Return where each picture's annotated copy goes; equal names from different folders are numbered.

    What is in no format that can be written becomes a PNG.
    """
    if output is None:
        return {}
    make_folder(output)
    sources = {path.resolve() for path in pictures}
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path in dict.fromkeys(pictures):
        name = Path(path.name if path.suffix.lower() in SUFFIXES else f"{path.name}.png")
        number, target = 1, output / name
        while target in taken:
            number += 1
            target = output / f"{name.stem}-{number}{name.suffix}"
        if target.resolve() in sources:
            raise OutputError(f"{target}: would overwrite a picture to be read; choose another --output folder")
        taken.add(target)
        targets[path] = target
    return targets


def _json_line(path: Path, frame: NDArray[np.uint8], detections: Detections) -> str:
    height, width = frame.shape[:2]
    content = {"source": str(path), "width": width, "height": height, "detections": json_objects(detections)}
    return json.dumps(content, ensure_ascii=False) + "\n"


def _summarise(path: Path, frame: NDArray[np.uint8], detections: Detections) -> PictureSummary:
    counts = Counter(name for _, _, name in detections)
    best = float(detections.scores[0]) if len(detections) else 0.0
    return PictureSummary(path, frame.shape[1], frame.shape[0], dict(counts.most_common()), best)


class _Clock:
    """Time spent by stage: each stop books what passed since the last one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def start(self) -> None:
        self._last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] += now - self._last
        self._last = now

    def means(self, count: int) -> dict[str, float]:
        return {stage: seconds * 1000 / max(count, 1) for stage, seconds in self._seconds.items()}

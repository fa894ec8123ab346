"""Frames from a camera, from a sequence of pictures, and from the caller."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cornernet_runtime.errors import FrameError, VideoError
from cornernet_runtime.pictures import find_pictures, quiet_opencv, read_picture
from cornernet_runtime.processing.preprocess import check_frame
from cornernet_runtime.video.addresses import is_address, is_live
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.frame import MICROSECOND, Source, VideoFrame, state_of, stop
from cornernet_runtime.video.network import NetworkStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Frames:
    """Frames that the caller makes.

    Args:
        frames: ``VideoFrame``, which are given as they are, or arrays uint8 [H, W, 3], BGR, or on a GPU. An array must
            not be written to until its result was given.
        fps: Frames a second, for the times of arrays; by default their times are those at which they came.
        live: As for ``Source``.
        name: As for ``Source``.
    """

    def __init__(
        self, frames: Iterable[Any], fps: float | Fraction | None = None, *, live: bool = False, name: str = "frames"
    ) -> None:
        if fps is not None and not fps > 0:
            raise VideoError(f"fps: expected a number above 0, got {fps}")
        self.name, self.live = name, live
        self.problems: list[str] = []
        self._frames, self._fps = frames, fps
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            FrameError: One has another shape or type.
        """
        self._iterator = iter(self._frames)
        clock = _Clock(self._fps)
        for index, frame in enumerate(self._iterator):
            if isinstance(frame, VideoFrame):
                yield frame
                continue
            if isinstance(frame, np.ndarray):
                try:
                    check_frame(frame)
                except FrameError as error:
                    raise FrameError(f"{self.name}, frame {index}: {error}") from error
            yield VideoFrame(frame, index, *clock.time_of(index), self.name)

    def close(self) -> None:
        """Close the caller's iterator, if it is one that can be closed."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class Pictures:
    """Pictures as the frames of a video; one that cannot be read is named in ``problems`` and left out.

    Args:
        sources: Files, folders and globs, as for ``pictures.find_pictures``.
        fps: Frames a second.

    Raises:
        FrameError: A source names no picture.
    """

    live = False

    def __init__(self, sources: Sequence[str], fps: float | Fraction = 25) -> None:
        self.name = ", ".join(sources)
        self.problems: list[str] = []
        self._paths, self._clock = find_pictures(sources), _Clock(fps)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the pictures; each keeps its place and time if one before it cannot be read.

        Raises:
            VideoError: None of them can be read.
        """
        for index, path in enumerate(self._paths):
            try:
                image = read_picture(path)
            except FrameError as error:
                self.problems.append(str(error))
                continue
            yield VideoFrame(image, index, *self._clock.time_of(index), self.name)
        if len(self.problems) == len(self._paths):
            raise VideoError(f"{self.name}: none of {len(self._paths)} pictures can be read")

    def close(self) -> None:
        """Nothing is held."""


class Camera:
    """A camera of this machine, by OpenCV.

    Times are those at which frames came, from that of the first one.

    Args:
        index: Of the camera, from 0.

    Raises:
        VideoError: There is no such camera, or it is in use.
    """

    live = True

    def __init__(self, index: int) -> None:
        self.name = f"camera {index}"
        self.problems: list[str] = []
        if index < 0:  # which ends the process in OpenCV
            raise VideoError(f"the index of a camera is expected to be 0 or more, got {index}")
        with quiet_opencv():
            self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            self._capture.release()
            present = sorted(path.name for path in Path("/dev").glob("video*"))
            there = f"there are {', '.join(present)}" if present else "this machine has none"
            raise VideoError(f"{self.name} cannot be opened: it is in use or not there; {there}")

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield frames until the camera is gone.

        Raises:
            VideoError: The camera gives no more frames.
        """
        clock, index = _Clock(None), 0
        while True:
            with quiet_opencv():
                there, image = self._capture.read()
            if not there:
                raise VideoError(f"{self.name} gives no more frames after {index}; it may have been unplugged")
            yield VideoFrame(image, index, *clock.time_of(index), self.name)
            index += 1

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


class Part:
    """Some frames of another source, with their indices and times there.

    Args:
        source: Whose.
        every: Of so many frames the first is given.
        start: Seconds from the first frame; those before are left out.
        duration: Seconds from the first frame that is given, after which it ends; None for all.

    Attributes:
        duration: Seconds that it should last, as far as that is known.

    Raises:
        VideoError: ``every`` or ``duration`` is below what there can be.
    """

    def __init__(self, source: Source, *, every: int = 1, start: float = 0.0, duration: float | None = None) -> None:
        if every < 1 or (duration is not None and not duration > 0):
            raise VideoError(f"expected every 1 or more and duration above 0, got {every} and {duration}")
        self.name, self.live, self.problems = source.name, source.live, source.problems
        self._source, self._every, self._start, self._limit = source, every, start, duration
        known = [seconds for seconds in (duration, getattr(source, "duration", None)) if seconds is not None]
        self.duration: float | None = min(known, default=None)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            CornerNetError: As the source does.
        """
        begin: float | None = None
        count = 0
        for frame in self._source:
            begin = frame.seconds + self._start if begin is None else begin
            if frame.seconds < begin:
                continue
            if count == 0:
                begin = frame.seconds
            if self._limit is not None and frame.seconds >= begin + self._limit:
                return
            if count % self._every == 0:
                yield frame
            count += 1

    @property
    def state(self) -> str | None:
        """That of the source, if it has one."""
        return state_of(self._source)

    def stop(self) -> None:
        """End the iteration, if the source lets others do so."""
        stop(self._source)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def open_source(source: object) -> Source:
    """Return what gives the frames of a source.

    Args:
        source: A ``Source``, which is returned; the path of a video or of a folder of pictures; the address (URL) of
            a stream, or over HTTP or FTP of a video file, which its suffix tells (see ``addresses.is_live``); the
            index of a camera; or an iterable of frames (see ``Frames``).

    Raises:
        VideoError: It is something else, or cannot be opened.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str) and is_address(source):
        return NetworkStream(source) if is_live(source) else VideoFile(source)
    if isinstance(source, str | Path):
        return Pictures([str(source)]) if Path(source).is_dir() else VideoFile(source)
    if isinstance(source, int):
        return Camera(source)
    if hasattr(source, "__iter__") and not isinstance(source, np.ndarray | bytes):
        return Frames(source)
    raise VideoError(
        "a source is a path, an address, the index of a camera, an iterable of frames or a Source, "
        f"got {type(source).__name__}"
    )


class _Clock:
    """Times of frames: by a rate, or when they came, from the first one."""

    def __init__(self, fps: float | Fraction | None) -> None:
        self._unit = None if fps is None else 1 / Fraction(fps).limit_denominator(1_000_000)
        self._first: float | None = None
        self._last = -1

    def time_of(self, index: int) -> tuple[int, Fraction]:
        """Return ticks and seconds of a tick of the frame that came just now."""
        if self._unit is not None:
            return index, self._unit
        now = time.perf_counter()
        self._first = now if self._first is None else self._first
        self._last = max(round((now - self._first) * 1_000_000), self._last + 1)
        return self._last, MICROSECOND

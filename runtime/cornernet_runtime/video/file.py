"""Video files, decoded by FFmpeg (PyAV), with the times and the orientation that they carry."""

from __future__ import annotations

import contextlib
import itertools
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.addresses import is_address, masked
from cornernet_runtime.video.frame import VideoFrame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

USUAL_RATE = Fraction(25)  # frames a second, where a file does not say
ADDRESS_PATIENCE = (20.0, 10.0)  # seconds to open a file elsewhere, and to wait for more of it


class VideoFile:
    """The frames of a file's first video track.

    What cannot be decoded is skipped, and a file that ends before it should gives what it has; both are named in
    ``problems``, as far as FFmpeg notices. Frames may change their size midway.

    Args:
        path: Of the file; or its address (URL), of which ``name`` holds neither user nor password nor query.
        start: Seconds from its beginning; frames before are not given.

    Attributes:
        begin: Time of the first frame on the file's own clock, seconds, as the file announces it.
        duration: Seconds that the file should last, or None where it does not say.
        rate: Frames a second on average, as the file announces it, or None.

    Raises:
        VideoError: PyAV is not installed, or the file is not there, no video, or of a codec that is not known.
    """

    live = False

    def __init__(self, path: str | Path, start: float = 0.0) -> None:
        self._path = str(path)
        self.name = masked(self._path) if is_address(self._path) else self._path
        self.problems: list[str] = []
        self._av = import_av()
        self._start = start
        self._container = self._open()
        try:
            self._stream = self._video_track()
        except VideoError:
            self.close()
            raise
        if (aspect := self._stream.sample_aspect_ratio or 1) != 1:
            shape = f"{aspect.numerator}:{aspect.denominator}"
            self.problems.append(f"{self.name}: its pixels are {shape}, not square; frames and boxes are as stored")
        self.begin = float((self._stream.start_time or 0) * self._stream.time_base)
        self.duration = self._declared_duration()
        self.rate: Fraction | None = self._stream.average_rate
        self._damaged = 0  # packets that cannot be decoded, and frames that were patched up
        self._unit = 0.0  # seconds from the last frame but one to the last

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames in the order in which they are shown.

        Raises:
            VideoError: No frame can be decoded.
        """
        index, last = 0, self.begin
        start = self.begin + self._start
        for picture in self._pictures_from(start) if self._start > 0 else self._pictures():
            ticks, time_base = self._time_of(picture, index)
            seconds = float(ticks * time_base)
            if self._start > 0 and seconds < start:
                continue
            try:
                image = image_of(picture)
            except (ValueError, self._av.error.FFmpegError):  # damage that claims an odd format
                self._damaged += 1
                continue
            frame = VideoFrame(image, index, ticks, time_base, self.name)
            index, last, self._unit = index + 1, seconds, seconds - last
            yield frame
        if self._damaged:
            places = "1 place" if self._damaged == 1 else f"{self._damaged} places"
            self.problems.append(f"{self.name}: damaged in {places}, where frames are missing or patched up")
        if index == 0:
            raise VideoError(f"{self.name}: expected frames{self._from_start()}, got none")
        lasted = last - self.begin
        if self.duration is not None and lasted + 2 * self._unit < 0.98 * self.duration:
            self.problems.append(
                f"{self.name}: ends after {lasted:.2f} s of {self.duration:.2f} s: it is cut short or damaged"
            )

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> Any:  # noqa: ANN401 - PyAV is an extra
        try:
            timeout = ADDRESS_PATIENCE if is_address(self._path) else None
            return self._av.open(self._path, metadata_errors="replace", timeout=timeout)
        except self._av.error.FFmpegError as error:
            reason = error.strerror or str(error)
            if isinstance(error, self._av.error.InvalidDataError):
                reason = "no video that FFmpeg can read, or cut short"
        # Outside of the handler, for FFmpeg's error holds the whole address, with what is secret in it.
        raise VideoError(f"{self.name}: {reason[:1].lower()}{reason[1:]}; give a video file")

    def _video_track(self) -> Any:  # noqa: ANN401
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams}) or ["nothing"]
            raise VideoError(f"{self.name}: expected a video, got a file with {' and '.join(kinds)} only")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise VideoError(f"{self.name}: its codec is not known to this FFmpeg; convert it to H.264, for example")
        return stream

    def _declared_duration(self) -> float | None:
        """Return how long the frames should last; a container's own duration may be that of a longer sound."""
        stream, container = self._stream, self._container
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and len(container.streams) == 1:
            return float(container.duration / self._av.time_base)
        return None

    def _pictures_from(self, start: float) -> Iterator[Any]:
        """Yield what can be decoded, from some picture on that is not after a time."""
        for earlier in (0, 10):  # seconds; some containers are searched roughly, beyond the key frame that is needed
            with contextlib.suppress(self._av.error.FFmpegError):
                self._container.seek(int((start - earlier) * self._av.time_base), backward=True)
                pictures = self._pictures()
                first = next(pictures, None)
                if first is not None and first.pts is not None and float(first.pts * first.time_base) <= start:
                    return itertools.chain([first], pictures)
        self._container.close()
        self._container = self._open()
        self._stream = self._video_track()
        self._damaged = 0
        return self._pictures()

    def _pictures(self) -> Iterator[Any]:
        """Yield what can be decoded, and count what cannot."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                self.problems.append(f"{self.name}: cannot be read on: {error.strerror or error}")
                return
            if packet is None:
                return
            try:
                pictures = packet.decode()
            except self._av.error.FFmpegError:
                self._damaged += 1
                continue
            for picture in pictures:
                self._damaged += picture.is_corrupt
                yield picture

    def _time_of(self, picture: Any, index: int) -> tuple[int, Fraction]:  # noqa: ANN401
        """Return ticks and seconds of a tick; by the rate where a file has no times."""
        if picture.pts is None or not picture.time_base:
            return index, 1 / (self.rate or USUAL_RATE)
        return picture.pts, picture.time_base

    def _from_start(self) -> str:
        return f" from {self._start:g} s on" if self._start else ""


def image_of(picture: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - PyAV is an extra
    """Return a frame of PyAV as uint8 [H, W, 3], BGR, turned as it says."""
    image = picture.to_ndarray(format="bgr24")
    quarters = round(picture.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def import_av() -> Any:  # noqa: ANN401
    """Return PyAV, which then keeps its messages to itself.

    Raises:
        VideoError: It is not installed.
    """
    try:
        import av  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise VideoError('videos need PyAV, which is not installed; pip install "cornernet-trt[video]"') from error
    return av

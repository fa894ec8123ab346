"""Annotated video: detections drawn, the times of the source, and its sound."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cornernet_runtime.draw import draw_detections
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import make_folder
from cornernet_runtime.video.file import USUAL_RATE, import_av
from cornernet_runtime.video.sinks import part_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_runtime.video.frame import VideoFrame
    from cornernet_runtime.video.stream import FrameResult

ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that the build of FFmpeg has
OPTIONS = {"libx264": {"preset": "veryfast", "crf": "23"}}
# A fragment a second, each of which can be played by itself. What stands before them is written after the first, when
# the time of the first frame is known; the movie's own clock, by which that is told, is as fine as the video's.
FRAGMENTS = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
BT709 = 1  # FFmpeg's number, of matrix, primaries and transfer


class VideoWriter:
    """Writes results as an MP4 with the detections drawn in.

    The file is fragmented and written under the name that ``part_of`` gives, so that what was written until a kill can
    be played. Closing renames it. Frames have the times of the source to the tick; of two at the same time the second
    is a tick later. Sizes that are odd grow by a row or column, and frames of other sizes are fitted into the first's.

    Args:
        path: Of the file, ``.mp4``, whose folder is made.
        sound: A video whose sound is passed through, packet by packet.
        from_zero: Whether the first frame is at zero, rather than at its time in the source.

    Attributes:
        problems: What could not be done as it should.

    Raises:
        OutputError: The name is another, the folder cannot be made, or FFmpeg has no encoder.
        VideoError: PyAV is not installed.
    """

    def __init__(self, path: Path, *, sound: Path | None = None, from_zero: bool = False) -> None:
        if path.suffix.lower() != ".mp4":
            raise OutputError(f"{path}: annotated videos are MP4; choose a name that ends in .mp4")
        self._av = import_av()
        self._encoder = _best_encoder(self._av)
        make_folder(path.parent)
        self.problems: list[str] = []
        self._path, self._part = path, part_of(path)
        self._sound_path, self._from_zero = sound, from_zero
        self._start = Fraction(0)  # time of the source that is zero in the file
        self._container: Any = None
        self._stream: Any = None
        self._sound: _Sound | None = None
        self._size = (0, 0)  # height and width
        self._base = Fraction(0)
        self._last: int | None = None
        self._step = 0

    def write(self, result: FrameResult) -> None:
        """Draw the detections into the frame, and encode it.

        Raises:
            OutputError: The file cannot be written.
            FrameError: The frame lies on a GPU.
        """
        image = draw_detections(result.image, result.detections)
        with self._ours():
            if self._container is None:
                self._open(image, result.frame)
            ticks = round((result.frame.ticks * result.frame.time_base - self._start) / self._base)
            if self._last is not None:
                ticks = max(ticks, self._last + 1)  # no encoder takes times that do not grow
                self._step = ticks - self._last
            self._last = ticks
            self._mux_sound(ticks * self._base)
            picture = self._av.VideoFrame.from_ndarray(self._fitted(image), format="bgr24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            picture.pts, picture.time_base = ticks, self._base
            self._mux(self._stream.encode(picture))

    def close(self, *, whole: bool = True) -> None:
        """Finish the file and give it its name; without any frame there is none.

        Args:
            whole: Whether the rest of the sound belongs to it.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._container is None:
            return
        try:
            with self._ours():
                self._mux(self._stream.encode(None))
                self._mux_sound(None if whole else ((self._last or 0) + self._step) * self._base)
                self._close()
                self._part.replace(self._path)
        except OutputError:
            self.abort()
            raise

    def abort(self) -> None:
        """Finish the file as well as it can be, under its temporary name."""
        if self._container is None:
            return
        with contextlib.suppress(OutputError), self._ours():
            self._mux(self._stream.encode(None))
        with contextlib.suppress(OutputError), self._ours():
            self._close()

    def _open(self, image: NDArray[np.uint8], first: VideoFrame) -> None:
        av = self._av
        self._size, self._base = image.shape[:2], first.time_base
        self._start = first.ticks * first.time_base if self._from_zero else Fraction(0)
        fine = {"movie_timescale": str(_timescale(self._base))}
        self._container = av.open(str(self._part), "w", format="mp4", options=FRAGMENTS | fine)
        options = OPTIONS.get(self._encoder, {})
        self._stream = self._container.add_stream(self._encoder, rate=USUAL_RATE, options=options)
        context = self._stream.codec_context
        context.height, context.width = (side + side % 2 for side in self._size)
        context.pix_fmt, context.time_base = "yuv420p", self._base
        context.max_b_frames = 0  # what was encoded is written at once, and times need no shift
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1  # 16 to 235
        if self._sound_path is not None:
            self._sound = _Sound.of(av, self._sound_path, self._container, self.problems)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._step  # the last of a fragment would have none
            self._container.mux(packet)

    def _mux_sound(self, until: Fraction | None) -> None:
        if self._sound is not None:
            for packet in self._sound.packets(self._start, until):
                self._container.mux(packet)

    def _fitted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image in the size of the video, with its last row or column twice where that is odd."""
        height, width = self._size
        if image.shape[:2] != self._size:
            if not self.problems or "frames of" not in self.problems[-1]:
                there = f"{image.shape[1]}x{image.shape[0]}"
                self.problems.append(f"{self._path}: frames of {there} are fitted into {width}x{height}, the first's")
            scale = min(height / image.shape[0], width / image.shape[1])
            rows, columns = (max(1, round(side * scale)) for side in image.shape[:2])
            canvas = np.zeros((height, width, 3), np.uint8)
            top, left = (height - rows) // 2, (width - columns) // 2
            canvas[top : top + rows, left : left + columns] = cv2.resize(image, (columns, rows))
            image = canvas
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return image

    def _close(self) -> None:
        container, self._container = self._container, None
        if self._sound is not None:
            self._sound.close()
        container.close()

    @contextlib.contextmanager
    def _ours(self) -> Iterator[None]:
        """Tell errors of writing as ours; PyAV's are OSErrors as well where the system gave the reason."""
        try:
            yield
        except (OSError, self._av.error.FFmpegError) as error:
            kept = f"; what was written until then is in {self._part}" if self._part.exists() else ""
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}{kept}") from error


class _Sound:
    """The sound of another file, on its way into a container."""

    def __init__(self, av: Any, container: Any, stream: Any, target: Any) -> None:  # noqa: ANN401 - PyAV is an extra
        self._container, self._target = container, target
        self._packets = container.demux(stream)
        if stream.codec_context.name == "aac" and not stream.codec_context.extradata:  # as in transport streams
            headers = av.bitstream.BitStreamFilterContext("aac_adtstoasc", stream)
            self._packets = (packet for raw in self._packets if raw.size for packet in headers.filter(raw))
        self._next: Any = None

    @classmethod
    def of(cls, av: Any, path: Path, output: Any, problems: list[str]) -> _Sound | None:  # noqa: ANN401
        """Return the first sound of a file, with a track for it in the output; None without, or if it has no place."""
        container = av.open(str(path))
        stream = next(iter(container.streams.audio), None)
        if stream is not None and stream.codec_context is not None:
            with contextlib.suppress(ValueError, av.error.FFmpegError):
                return cls(av, container, stream, output.add_stream_from_template(stream))
            problems.append(f"{path}: its sound ({stream.codec_context.name}) cannot be in an MP4, and is left out")
        container.close()
        return None

    def packets(self, start: Fraction, until: Fraction | None) -> Iterator[Any]:
        """Yield what comes up to a time, all of it by default; times are less ``start``, and none is before it."""
        while True:
            packet = self._next or next(self._packets, None)
            self._next = None
            if packet is None:
                return
            if packet.dts is None:
                continue  # says that the file is at its end
            shift = round(start / packet.time_base)
            if until is not None and (packet.dts - shift) * packet.time_base > until:
                self._next = packet
                return
            if start and packet.dts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._target
            yield packet

    def close(self) -> None:
        self._container.close()


def _timescale(time_base: Fraction) -> int:
    """Return the ticks a second that the MP4 will count in: what FFmpeg makes of a time base."""
    scale = time_base.denominator
    while scale < 10_000:
        scale *= 2
    return scale


def _best_encoder(av: Any) -> str:  # noqa: ANN401
    for name in ENCODERS:
        with contextlib.suppress(av.codec.codec.UnknownCodecError):
            av.Codec(name, "w")
            return name
    raise OutputError(f"this FFmpeg has none of the encoders {', '.join(ENCODERS)}; install PyAV from its wheel")

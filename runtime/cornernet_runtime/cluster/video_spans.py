"""One long video for many workers: cut where a decoder can begin, each span with the frames of a single pass.

A pass over the packets, without decoding, tells when each frame is shown and which are key frames. A span is what is
shown from one key frame to a later one. Its worker decodes from the key frame on, drops what is shown before it
(pictures that lead it refer to frames of the span before), and goes on until a frame is shown that is of the next span,
for the pictures that lead that one come after it in the file. Where the packets do not tell, the video stays whole;
where a span turns out to have other frames than the packets told, it is void, and the video is done again as a whole.
"""

from __future__ import annotations

import bisect
import contextlib
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.file import VideoFile, image_of
from cornernet_runtime.video.frame import VideoFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_runtime.cluster.plan import Part

Span = tuple[int, int, int | None, int | None]  # first frame, frames, and times in ticks: begin and end
SEARCHED_EARLIER = (0, 10)  # seconds; some containers are searched roughly, beyond the key frame that is needed


class SpanError(VideoError):
    """A span that does not have the frames that a single pass has there."""


def split(path: str, least: int) -> list[Span]:
    """Cut a video into spans of at least so many frames; an empty list is one that has to stay whole.

    The last span can be shorter. A video stays whole if it is short, cannot be opened, is damaged or cut short as far
    as its packets tell, has frames without a time of their own, or hides frames elsewhere than before its beginning.

    Raises:
        VideoError: PyAV is not installed.
    """
    try:
        file = _Packets(path)
    except VideoError:
        return []
    with contextlib.closing(file):
        told = file.times()
    if told is None:
        return []
    times, keys = told
    firsts = [0]
    for key in keys:
        place = bisect.bisect_left(times, key)
        if place - firsts[-1] >= least:
            firsts.append(place)
    ends = [*firsts[1:], len(times)]
    return [
        (first, end - first, times[first] if first else None, times[end] if end < len(times) else None)
        for first, end in zip(firsts, ends, strict=True)
    ]


class VideoSpan(VideoFile):
    """The frames of a span, with indices and times as in a single pass.

    Args:
        part: The span.
        every: Of so many frames of the video the first is given.
        threads: For decoding.

    Raises:
        VideoError: As for ``VideoFile``.
    """

    def __init__(self, part: Part, every: int, threads: int) -> None:
        super().__init__(part.sources[0])
        self._part, self._every, self._threads = part, every, threads

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            SpanError: It has not the frames that the packets told.
        """
        part, shown = self._part, 0
        last = None
        for picture in self._pictures_from_key(part.start):
            ticks = picture.pts
            if ticks is None or (last is not None and ticks <= last):
                raise self._uneven(f"frames without times that rise, after frame {part.first + shown}")
            last = ticks
            if part.start is not None and ticks < part.start:
                continue
            if part.end is not None and ticks >= part.end:
                break
            if picture.is_corrupt or self._damaged:
                break
            index = part.first + shown
            shown += 1
            if index % self._every:
                continue
            try:
                image = image_of(picture)
            except (ValueError, self._av.error.FFmpegError) as error:
                raise self._uneven(f"frame {index} is damaged") from error
            yield VideoFrame(image, index, ticks, picture.time_base, self.name)
        if self._damaged or shown != part.count:
            raise self._uneven(f"{shown} of {part.count} frames from frame {part.first} on")

    def _uneven(self, what: str) -> SpanError:
        return SpanError(f"{self.name}: {what}")

    def _pictures_from_key(self, start: int | None) -> Iterator[Any]:
        """Yield what is decoded from the key frame of a time on, which its packet begins; None is the beginning."""
        self._stream.codec_context.thread_count = self._threads
        if start is None:
            yield from self._pictures()
            return
        for earlier in SEARCHED_EARLIER:
            packets = None
            with contextlib.suppress(self._av.error.FFmpegError):
                back = int(earlier / self._stream.time_base)
                self._container.seek(start - back, stream=self._stream, backward=True)
                packets = self._packets_from(start)
            if packets is not None:
                yield from self._decoded(packets)
                return
        self.close()
        self._container = self._open()
        self._stream = self._video_track()
        self._stream.codec_context.thread_count = self._threads
        packets = self._packets_from(start)
        if packets is None:
            raise self._uneven(f"no key frame at tick {start}")
        yield from self._decoded(packets)

    def _packets_from(self, start: int) -> Iterator[Any] | None:
        """Return the packets from a key frame's on; None where the search ended behind it."""
        packets = self._container.demux(self._stream)
        for packet in packets:
            if packet.pts == start and packet.is_keyframe:
                return _chained(packet, packets)
            if packet.pts is None or (packet.is_keyframe and packet.pts > start):
                return None
        return None

    def _decoded(self, packets: Iterator[Any]) -> Iterator[Any]:
        for packet in packets:
            try:
                yield from packet.decode()
            except self._av.error.FFmpegError:
                self._damaged += 1


class _Packets(VideoFile):
    """The packets of a video."""

    def times(self) -> tuple[list[int], list[int]] | None:
        """Return the ticks of all frames and of the key frames, both rising; None where they cannot be told."""
        times: list[int] = []
        keys: list[int] = []
        hidden: list[int] = []
        first_is_key = None
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0:  # the end
                    continue
                first_is_key = packet.is_keyframe if first_is_key is None else first_is_key
                if packet.pts is None or packet.is_corrupt:
                    return None
                if packet.is_discard:  # before the beginning or behind the end that an edit list sets
                    hidden.append(packet.pts)
                    continue
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except self._av.error.FFmpegError:
            return None
        times.sort()
        if not first_is_key or not times or len(set(times)) < len(times) or (hidden and max(hidden) > times[0]):
            return None
        if self.duration is not None and len(times) > 1:
            begin, unit = self._stream.start_time or times[0], times[-1] - times[-2]
            lasted = float((times[-1] - begin + 2 * unit) * self._stream.time_base)
            if lasted < 0.98 * self.duration:  # as VideoFile tells one that is cut short
                return None
        return times, sorted(keys)


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:  # noqa: ANN401
    yield first
    yield from rest

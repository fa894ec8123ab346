"""Live streams from the network, decoded by FFmpeg (PyAV): RTSP, RTMP, HTTP, UDP, TCP and what else it knows."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.addresses import host_of, is_address, masked
from cornernet_runtime.video.file import image_of, import_av
from cornernet_runtime.video.frame import MICROSECOND, VideoFrame
from cornernet_runtime.video.reconnect import LastingError, Reconnecting, Reconnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from fractions import Fraction

MARGIN = 1.0  # seconds that FFmpeg's own time-outs come after those of the watch

# What FFmpeg is told, unless the caller says otherwise:
# - No frames are looked at to guess their rate, which is not used: that alone takes most of a second.
# - RTSP over TCP, for a lost UDP packet smears pictures up to the next key frame; and no sound, which would have to be
#   waited for.
# - RTMP says what it sends in its first packets; FFmpeg would wait 5 seconds for more tracks.
# - UDP packets that come while the computer is busy overwrite older ones, where FFmpeg would end the stream.
# "nobuffer" is left out on purpose: it drops what was read to find out about the stream, the first key frame with it,
# and frames then come no sooner. "low_delay" would disorder streams with B frames.
EVERYWHERE = {"fpsprobesize": "0"}
_RTSP = {"rtsp_transport": "tcp", "allowed_media_types": "video"}
_RTMP = {"analyzeduration": "1000000"}  # microseconds
OPTIONS = {
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": _RTMP,
    "rtmps": _RTMP,
    "udp": {"overrun_nonfatal": "1"},
}
# PyAV's names of refusals that last.
REFUSALS = {
    "HTTPBadRequestError": "the server does not understand the address (400)",
    "HTTPUnauthorizedError": "it wants a user and a password (401); give SCHEME://USER:PASSWORD@HOST/PATH",
    "HTTPForbiddenError": "the server forbids it (403); give SCHEME://USER:PASSWORD@HOST/PATH of one who may",
    "HTTPNotFoundError": "the server has nothing there (404); check the path",
    "HTTPOtherClientError": "the server refuses it (4xx); check the address",
}


REPEATING = frozenset({"applehttp", "dash", "hls"})  # in segments, of which a new connection begins with some of late
REPEATS_S = 30.0  # three segments, where FFmpeg begins, of the longest that are usual


class NetworkStream(Reconnecting):
    """A live stream, connected again whenever it ends or falls silent; see ``Reconnecting``.

    The first frame of each connection is a key frame. What cannot be decoded is left out up to the next key frame, and
    counted.

    User, password and query of the address are shown nowhere, but for what tells cameras apart (``addresses.SHOWN``).

    Args:
        url: The address, such as ``rtsp://user:password@host/path``, ``http://host/live.ts``, ``udp://@:5000`` or
            ``tcp://host:5000``.
        plan: When to cut, to wait and to give up.
        options: For FFmpeg's protocol and demuxer, over those of this module.
        format: FFmpeg's name of the container, where it cannot be told from the data.
        name: As for ``Source``; by default the address without what is secret.

    Attributes:
        damaged: Packets that could not be decoded or came incomplete, and frames that were patched up.

    Raises:
        VideoError: PyAV is not installed, or this is no address. While iterating, for good reasons at the first
            connection: the protocol is not known, a server refuses it (HTTP status 4xx, such as 401 where it wants
            other credentials), or there is no live video.
    """

    def __init__(
        self,
        url: str,
        plan: Reconnection | None = None,
        *,
        options: Mapping[str, str] | None = None,
        format: str | None = None,  # noqa: A002 - FFmpeg's word
        name: str | None = None,
    ) -> None:
        if not is_address(url):
            raise VideoError("expected the address of a stream such as rtsp://host/path, got something without ://")
        self._av = import_av()
        self._url, self._format = url, format
        self._options = {**EVERYWHERE, **OPTIONS.get(url.partition("://")[0].lower(), {}), **(options or {})}
        self._born = time.perf_counter()
        self.damaged = 0
        super().__init__(self._connected, masked(url) if name is None else name, plan)

    def close(self) -> None:
        """End the iteration and the connection; from any thread."""
        super().close()
        if self.damaged and not self.problems:
            places = "1 place" if self.damaged == 1 else f"{self.damaged} places"
            self.problems.append(f"{self.name}: damaged in {places}, where frames are missing or patched up")

    def _connected(self) -> _Connection:
        timeout = self._plan.connect_s + MARGIN, self._plan.silence_s + MARGIN
        container, told = None, None
        try:
            container = self._av.open(
                self._url, format=self._format, options=self._options, timeout=timeout, metadata_errors="replace"
            )
        except self._av.error.FFmpegError as error:
            told = self._told(error)
        except ValueError:  # of PyAV
            told = LastingError(f"{self.name}: this FFmpeg knows no format {self._format!r}")
        if told is not None:  # outside of the handler, for FFmpeg's error holds the whole address
            raise told
        return _Connection(self.name, self._av, container, self._count, self._born)

    def _count(self) -> None:
        self.damaged += 1

    def _told(self, error: Any) -> VideoError:  # noqa: ANN401 - PyAV is an extra
        """Return an error without secrets for one of FFmpeg on opening."""
        kinds, scheme = self._av.error, masked(self._url).partition("://")[0]
        reason = REFUSALS.get(type(error).__name__)
        if isinstance(error, kinds.ProtocolNotFoundError):
            reason = f"this FFmpeg knows no {scheme}://; give rtsp, rtmp, http, https, tcp or udp"
        elif isinstance(error, kinds.ArgumentError):
            reason = "FFmpeg cannot use this address; give SCHEME://HOST:PORT/PATH"
        elif isinstance(error, kinds.InvalidDataError) and scheme in ("http", "https"):
            reason = "there is no video that FFmpeg can read; give the address of the stream, not of its page"
        if reason is not None:
            return LastingError(f"{self.name}: {reason}")
        return VideoError(f"{self.name}: {_reason(error, host_of(self._url))}")


class _Connection:
    """One connection to a stream, as a source.

    Args:
        name: As for ``Source``.
        av: PyAV.
        container: What it opened; it is closed if there is no live video in it.
        count: Called for each damage.
        born: Zero of the times of frames that have none (``time.perf_counter``).

    Raises:
        LastingError: It holds no live video, or one of a codec that is not known.
    """

    live = True

    def __init__(self, name: str, av: Any, container: Any, count: Callable[[], None], born: float) -> None:  # noqa: ANN401
        self.name = name
        self.problems: list[str] = []
        self._av, self._container, self._count, self._born = av, container, count, born
        self._stream = container.streams.best("video")
        self._timeless = bool(container.format.flags & av.format.Flags.no_timestamps.value)
        self.repeats_s = 0.0 if REPEATING.isdisjoint(container.format.name.split(",")) else REPEATS_S
        self._awaits_key = True
        if (reason := self._unfitness()) is not None:
            container.close()
            raise LastingError(f"{name}: {reason}")

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield what can be decoded, from a key frame on.

        Raises:
            VideoError: The connection failed.
        """
        index = 0
        for packet in self._packets():
            for picture in self._decoded(packet):
                if packet.is_corrupt or picture.is_corrupt:
                    self._count()
                if (time_of := self._time_of(picture)) is None:
                    continue
                try:
                    image = image_of(picture)
                except (ValueError, self._av.error.FFmpegError):  # garbage that claims an odd format
                    self._count()
                    continue
                yield VideoFrame(image, index, *time_of, self.name)
                index += 1

    def close(self) -> None:
        """End the connection."""
        self._container.close()

    def _unfitness(self) -> str | None:
        """Return why it cannot be used, or None."""
        seconds = (self._container.duration or 0) / self._av.time_base
        if seconds > 0:
            return f"it ends after {seconds:.1f} s, so it is no live stream; open it with VideoFile, or download it"
        if self._stream is None:
            kinds = " and ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            return f"expected a video, got {kinds} only"
        if self._stream.codec_context is None:
            return "its codec is not known to this FFmpeg; have it sent as H.264, for example"
        return None

    def _time_of(self, picture: Any) -> tuple[int, Fraction] | None:  # noqa: ANN401
        """Return ticks and seconds of a tick; None for one without a time among others, as RTSP's first may be."""
        if self._timeless:  # at best the container counts frames, so this machine's clock knows better
            return round((time.perf_counter() - self._born) * 1_000_000), MICROSECOND
        return None if picture.pts is None else (picture.pts, picture.time_base)

    def _packets(self) -> Iterator[Any]:
        """Yield what comes, from a key frame on, and after damage again from one on."""
        packets = self._container.demux(self._stream)
        failure = None
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                failure = VideoError(f"{self.name}: {_reason(error, None)}")
                packet = None
            if failure is not None:  # outside of the handler, for FFmpeg's error holds the whole address
                raise failure
            if packet is None:
                return
            self._awaits_key = self._awaits_key and not packet.is_keyframe
            if not self._awaits_key:
                yield packet

    def _decoded(self, packet: Any) -> list[Any]:  # noqa: ANN401
        try:
            pictures: list[Any] = packet.decode()
        except self._av.error.FFmpegError:
            self._count()
            self._awaits_key = True
            self._stream.codec_context.flush_buffers()
            return []
        return pictures


def _reason(error: Any, host: str | None) -> str:  # noqa: ANN401 - PyAV is an extra
    """Return what FFmpeg's error says, and whether a host is unknown, which FFmpeg does not tell."""
    if host is not None and error.errno == errno.EIO:
        try:
            socket.getaddrinfo(host, None)
        except OSError as unknown:
            return f"the host {host} is not known ({unknown.strerror})"
    reason = error.strerror or type(error).__name__
    return reason[:1].lower() + reason[1:]

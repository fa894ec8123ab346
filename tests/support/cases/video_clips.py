"""Short videos of shapes that move, encoded by the real codecs."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from cornernet_bench.stream.clip import passing
from cornernet_train.shapes import make_scene

TICK = Fraction(1, 12800)
STEP = 512  # ticks: 25 frames a second


def moving_shapes(count, size=(126, 190), seed=8):
    """Yield ``count`` frames uint8 [H, W, 3] of a drawn scene that passes by."""
    return passing(make_scene(seed, 0).image, count, size)


def write_clip(path, frames, ticks=None, *, time_base=TICK, codec="libx264", sound=None, keyframes=250):
    """Write frames at times, 25 a second unless told, and return the path.

    Args:
        path: Its suffix is the container.
        frames: uint8 [H, W, 3], BGR, all of the first one's size, even.
        ticks: Of each frame, in units of ``time_base``.
        time_base: Seconds.
        codec: Of FFmpeg.
        sound: Seconds of a tone beside the frames, or None.
        keyframes: Frames from one key frame to the next.
    """
    frames = list(frames)
    ticks = [STEP * index for index in range(len(frames))] if ticks is None else ticks
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = keyframes
        audio = None if sound is None else container.add_stream("aac", rate=8000, layout="mono")
        if audio is not None:
            for packet in _tone(audio, sound):
                container.mux(packet)
        for image, tick in zip(frames, ticks, strict=True):
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            picture.pts, picture.time_base = tick, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def _tone(stream, seconds):
    samples = (8000 * np.sin(np.arange(int(8000 * seconds)) * 0.35)).astype(np.int16)[None]
    for start in range(0, samples.shape[1] - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def decoded(path):
    """Return (seconds as a fraction, image) of each frame of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def turned(path, quarters):
    """Have an MP4 say that its picture is to be turned clockwise by some quarters, in its track's matrix."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)
    return path


def damaged(path, packets):
    """Overwrite the middle of some packets of a video with zeros."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number in packets:
        start, size = places[number]
        content[start + size // 3 : start + 2 * size // 3] = bytes(2 * size // 3 - size // 3)
    path.write_bytes(content)
    return path


def truncated(path, part):
    """Cut a file to a part of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path

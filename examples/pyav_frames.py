"""Detect in frames that PyAV decodes, with their own times: python pyav_frames.py MODEL VIDEO."""

import sys
from collections.abc import Iterator

import av

from cornernet_runtime import Detector
from cornernet_runtime.video.frame import VideoFrame


def frames_of(video: str) -> Iterator[VideoFrame]:
    """Decode, in a thread of the stream, while another detects."""
    with av.open(video) as container:
        for index, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="bgr24")
            yield VideoFrame(image, index, frame.pts, frame.time_base, video)


with Detector.open(sys.argv[1]) as detector, detector.stream(frames_of(sys.argv[2])) as stream:
    for result in stream:
        names = [name for _, _, name in result.detections.above(0.5)]
        print(f"{result.seconds:.3f} s: {', '.join(sorted(names)) or 'nothing'}")

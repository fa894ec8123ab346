"""Detect in frames that lie on the GPU, where they stay: python gpu_frames.py MODEL VIDEO.

PyTorch stands for whatever puts them there: a decoder on the GPU, CuPy, a camera's library. What they share is DLPack.
MODEL is a bundle with an engine.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import torch

from cornernet_runtime import Detector
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.frame import VideoFrame


def frames_on_gpu(video: str) -> Iterator[VideoFrame]:
    for frame in VideoFile(video):
        yield replace(frame, image=torch.from_numpy(frame.image).cuda())  # uint8 [H, W, 3], BGR


with Detector.open(sys.argv[1]) as detector, detector.stream(frames_on_gpu(sys.argv[2])) as stream:
    for result in stream:
        names = [name for _, _, name in result.detections.above(0.5)]  # result.image is still the tensor
        print(f"frame {result.index}: {', '.join(sorted(names)) or 'nothing'}")

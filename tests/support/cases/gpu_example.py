"""Runs examples/gpu_frames.py: ``python -m cases.gpu_example host`` on the driver that is none, ``... gpu`` on a GPU.

The model is the shipped checkpoint in place of an engine, which needs TensorRT. On the driver that is none, PyTorch has
no CUDA, and a frame is put into the driver's memory in its place.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from cases.pipeline import SHIPPED, Once, Pair
from cases.video_clips import write_clip
from places import ROOT

from cornernet_bench.models.open import open_model
from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.video.file import VideoFile
from cornernet_train.shapes_video import moving_shapes

FRAMES = 3


def on_the_host(patch):
    """Have frames put into the driver's memory; return a detector there."""
    pair = Pair(open_model(SHIPPED))
    patch.setattr(torch.Tensor, "cuda", lambda tensor: Once(CudaDevice(), tensor.numpy()))
    return Detector(pair.detector.backend, pair.detector.spec, pipeline=pair.pipeline)


def printed_by_the_example(clip, how):
    """Return what the example prints."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        detector = on_the_host(patch) if how == "host" else open_model(SHIPPED, "torch-cuda-fp32")
        patch.setattr(Detector, "open", lambda _: detector)
        patch.setattr(sys, "argv", ["gpu_frames.py", "shipped", str(clip)])
        runpy.run_path(str(ROOT / "examples" / "gpu_frames.py"), run_name="__main__")
    return output.getvalue().splitlines()


def main(how):
    """Run it, and compare what it says with what the CPU finds."""
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", [scene.image for scene in moving_shapes(2, FRAMES)])
        expected = []
        with open_model(SHIPPED) as detector:
            for frame in VideoFile(clip):
                names = sorted(name for _, _, name in detector(frame.image).above(0.5))
                assert len(names) >= 5
                expected.append(f"frame {frame.index}: {', '.join(names)}")
        found = printed_by_the_example(clip, how)
    assert found == expected, found
    assert len(found) == FRAMES


if __name__ == "__main__":
    main(sys.argv[1])

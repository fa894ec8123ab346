"""The GPU pipeline: frames in, detections out; nothing else passes through the host."""

from cornernet_runtime.pipeline.gpu import GpuPipeline

__all__ = ["GpuPipeline"]

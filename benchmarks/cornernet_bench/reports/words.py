"""Names and figures as reports show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.measuring.measurement import END_TO_END

if TYPE_CHECKING:
    from cornernet_bench.measuring.machine import Machine

NAMES = {"soft_nms": "soft-NMS", END_TO_END: "end to end"}
SHOWN_LIBRARIES = ("python", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorrt", "cuda-core")


def thread_text(machine: Machine) -> str:
    """Return how many threads each library may take."""
    return ", ".join(f"{name} {count or 'its own choice'}" for name, count in machine.threads.items())


def stage_name(stage: str) -> str:
    """Return what a stage is called for people."""
    return NAMES.get(stage, stage)


def ms_text(value: float) -> str:
    """Return milliseconds with three digits that count."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"

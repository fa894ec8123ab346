"""Decode and soft-NMS on the CPU, timed: ``python -m cornernet_bench.steps.postprocess``.

Decode runs on maps of 80 classes and 128x128 cells against the same steps in plain PyTorch, interleaved. Two kinds of
maps: forty objects on a quiet ground, as a trained model gives, and pure noise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

from cornernet_bench.baseline.pipeline import decode_in_torch
from cornernet_bench.kernels.synthetic import CLASSES, SIDE, noise_maps, object_maps, overlapping_boxes
from cornernet_bench.measuring.timing import environment, interleave, timing_table
from cornernet_export.model import CornerTensors
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_runtime.processing.nms import soft_nms

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 30


def main() -> None:
    """Print three tables."""
    console, rng = Console(highlight=False), np.random.default_rng(0)
    console.print(environment("torch"))
    console.print(f"{ROUNDS} rounds after 3 to warm up; {torch.get_num_threads()} threads in torch, one in NumPy")
    for title, maps in (("objects", object_maps(rng)), ("noise", noise_maps(rng))):
        tensors = CornerTensors(*(torch.from_numpy(getattr(maps, name))[None] for name in OUTPUT_NAMES))
        contestants: dict[str, Callable[[], object]] = {
            "torch": partial(decode_in_torch, tensors),
            "numpy": partial(decode, maps, DecodeParameters()),
        }
        with torch.inference_mode():
            times = interleave(contestants, ROUNDS)
        console.print(timing_table(f"decode, {CLASSES}x{SIDE}x{SIDE}, {title}", times, "torch"))
    crowds = {f"{count} classes": overlapping_boxes(rng, count) for count in (1, CLASSES)}
    times = interleave({name: partial(soft_nms, *crowd, NmsParameters()) for name, crowd in crowds.items()}, ROUNDS)
    console.print(timing_table("soft-NMS of 1000 candidates to 100", times, "1 classes"))


if __name__ == "__main__":
    main()

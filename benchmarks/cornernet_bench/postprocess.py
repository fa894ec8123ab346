"""Decode and soft-NMS on the CPU, timed: ``python -m cornernet_bench.postprocess``.

Decode runs on maps of 80 classes and 128x128 cells against the same steps in plain PyTorch, interleaved. Two kinds of
maps: forty objects on a quiet ground, as a trained model gives, and pure noise.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

from cornernet_bench.baseline import decode_in_torch
from cornernet_bench.timing import environment, interleave, timing_table
from cornernet_export.model import CornerTensors
from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_runtime.decode import decode
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps
from cornernet_runtime.nms import soft_nms
from cornernet_runtime.spec import DecodeParameters, NmsParameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

CLASSES, SIDE, INPUT = 80, 128, 511
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


def object_maps(rng: Generator) -> CornerMaps:
    """Return maps of one picture with forty objects, over a low noisy ground."""
    corner = rng.uniform(0, INPUT - 120, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(16, 120, (40, 2))], axis=1)
    targets = encode_boxes(
        boxes, rng.integers(0, CLASSES, 40), classes=CLASSES, map_size=(SIDE, SIDE), input_size=(INPUT, INPUT)
    )
    ideal, ground = ideal_maps(targets), noise_maps(rng)
    return CornerMaps(
        np.maximum(ideal.tl_heat, ground.tl_heat - 4),
        np.maximum(ideal.br_heat, ground.br_heat - 4),
        ideal.tl_embed,
        ideal.br_embed,
        ideal.tl_offset,
        ideal.br_offset,
    )


def noise_maps(rng: Generator) -> CornerMaps:
    """Return maps of one picture that are nothing but noise."""
    channels = (CLASSES, CLASSES, 1, 1, 2, 2)
    return CornerMaps(*(rng.standard_normal((count, SIDE, SIDE), np.float32) for count in channels))


def overlapping_boxes(
    rng: Generator, classes: int, count: int = 1000
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return boxes [N, 4] in pixels, scores [N] and labels [N], crowded enough that most overlap others."""
    corner = rng.uniform(0, 400, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 110, (count, 2))], axis=1).astype(np.float32)
    return boxes, rng.uniform(0.01, 1, count).astype(np.float32), rng.integers(0, classes, count)


if __name__ == "__main__":
    main()

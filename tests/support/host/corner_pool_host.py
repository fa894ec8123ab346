"""Corner pooling's CUDA kernel on the CPU: run cases, and the oracle in NumPy."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNITS = [ROOT / "plugins" / "corner_pool.cu", ROOT / "tests" / "kernels" / "corner_pool_driver.cpp"]
LINEAR_FLOAT, LINEAR_HALF, CHANNELS_LAST = range(3)
TOP_LEFT, BOTTOM_RIGHT = range(2)


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the launcher. Maps are [N, C, H, W]; they are repacked for channels last."""

    corner: int
    map_format: int
    shape: tuple[int, int, int, int]
    offset: int = 0  # bytes
    workspace: bool = True
    multiprocessors: int = 132


class Result(NamedTuple):
    status: int
    workspace_bytes: int
    vertical_read: int  # bytes, as the output written; 0 unless the program counts
    horizontal_read: int
    output_written: int
    output: np.ndarray
    packed: np.ndarray


def run(program: Path, case: Case, vertical: np.ndarray, horizontal: np.ndarray, seed: int = 1) -> Result:
    """Pool two maps on the CPU."""
    first, second = packed(vertical, case.map_format), packed(horizontal, case.map_format)
    header = struct.pack(
        "10q",
        *(case.corner, case.map_format, *case.shape),
        *(first.nbytes, case.offset, case.workspace, case.multiprocessors),
    )
    done = subprocess.run(  # noqa: S603 - a program built here
        [program, str(seed)], input=header + first.tobytes() + second.tobytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    numbers = struct.unpack_from("5q", done.stdout)
    raw = np.frombuffer(done.stdout[40:], first.dtype).reshape(first.shape)
    return Result(*numbers, output=unpacked(raw, case), packed=raw)


def packed(maps: np.ndarray, map_format: int) -> np.ndarray:
    """Return ``maps`` [N, C, H, W] as the format lays them out; padding channels are 0."""
    if map_format != CHANNELS_LAST:
        return np.ascontiguousarray(maps)
    padding = -maps.shape[1] % 8
    return np.ascontiguousarray(np.pad(maps.transpose(0, 2, 3, 1), [(0, 0), (0, 0), (0, 0), (0, padding)]))


def unpacked(raw: np.ndarray, case: Case) -> np.ndarray:
    """Return the [N, C, H, W] of a packed map."""
    return raw if case.map_format != CHANNELS_LAST else raw[..., : case.shape[1]].transpose(0, 3, 1, 2)


def maps_of(case: Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two maps of normal values, some infinite, with many equal ones."""
    generator = np.random.default_rng([seed, *case.shape])
    kind = np.float32 if case.map_format == LINEAR_FLOAT else np.float16

    def one() -> np.ndarray:
        values = generator.standard_normal(case.shape).astype(kind)
        values = np.where(generator.random(case.shape) < 0.1, np.round(values), values)
        values[generator.random(case.shape) < 0.002] = np.inf
        values[generator.random(case.shape) < 0.3] = -np.inf
        return values.astype(kind)

    return one(), one()


def expected(case: Case, vertical: np.ndarray, horizontal: np.ndarray) -> np.ndarray:
    """Return corner pooling by NumPy's running maxima."""
    back = slice(None, None, -1 if case.corner == TOP_LEFT else 1)
    down = np.maximum.accumulate(vertical[:, :, back], axis=2)[:, :, back]
    along = np.maximum.accumulate(horizontal[..., back], axis=3)[..., back]
    with np.errstate(invalid="ignore"):  # infinity and its negative
        return down + along

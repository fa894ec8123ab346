"""Options that several command lines have, and what reads their values."""

from __future__ import annotations

import argparse
import math
import re

LARGEST_SCALE = 10
RAY_OPTIONS = ("workers", "worker_cpus", "worker_gpus")  # that need --ray


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--flip`` and ``--scales``, which say how often each picture is looked at."""
    parser.add_argument(
        "--flip", action="store_true", help="look at the mirror image too: more accurate, twice the work"
    )
    parser.add_argument(
        "--scales",
        type=parse_scales,
        default=(1.0,),
        metavar="S,S,...",
        help="look at these scales and merge the boxes, such as 0.5,0.75,1,1.25,1.5 (default 1)",
    )


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of ``HxW``, for an option."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HxW such as 511x511, got {text!r}")
    return int(match[1]), int(match[2])


def parse_score(text: str) -> float:
    """Return a score, 0 to 1, for an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def parse_scales(text: str) -> tuple[float, ...]:
    """Return the scales of ``S,S,...``, for an option."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= LARGEST_SCALE for scale in scales) or len(set(scales)) < len(scales):
        raise argparse.ArgumentTypeError(
            f"expected distinct numbers above 0 and up to {LARGEST_SCALE} such as 0.5,1,1.5, got {text!r}"
        )
    return scales


def whole_number(text: str) -> int:
    """Return a number of things, 1 or more, for an option; no library is asked to count to more than 2**40."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 2**40:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """Return a number of GPUs, whole or a part of one, for an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not (0 <= value < math.inf and (value < 1 or value.is_integer())):
        raise argparse.ArgumentTypeError(f"expected a whole number or a part of 1, got {text!r}")
    return value


def add_ray_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--ray`` and what its workers are given; ``RAY_OPTIONS`` go with it only."""
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work by Ray: HOST:PORT of a cluster, auto, or local for this machine",
    )
    group.add_argument("--workers", type=whole_number, metavar="N", help="detectors at work (default: as many as fit)")
    group.add_argument("--worker-cpus", type=whole_number, metavar="C", help="cores for each (default 1)")
    group.add_argument("--worker-gpus", type=share, metavar="G", help="GPUs for each, such as 1 or 0.5 (default 0)")

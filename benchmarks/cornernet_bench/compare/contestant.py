"""What ``cornernet-bench compare`` compares: a model and how it is to run, in one word of a command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.model_names import CHECKPOINTS, PUBLISHED
from cornernet_bench.models.subject import Subject
from cornernet_runtime.bundle.manifest import ENGINE_NAME, ONNX_NAME, read_manifest
from cornernet_runtime.cli.options import parse_scales, parse_size
from cornernet_runtime.errors import BundleError, SizeError
from cornernet_runtime.opening import BACKENDS

if TYPE_CHECKING:
    from cornernet_runtime.bundle.spec import Size

FORM = "MODEL[@BACKEND][:flip][:scales=S,S,...][:size=HxW][:stacks=N]"
TORCH_BACKENDS = ("torch", "torch-fp16", "torch-cuda", "torch-cuda-fp32", PUBLISHED)  # of checkpoints


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model and how it is to run.

    Attributes:
        text: As typed.
        path: A bundle, an ``.onnx`` file or a checkpoint.
        backend: What runs the network; None takes the best here.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        size: Input that every frame is fitted into; None leaves it to the model.
        stacks: Hourglasses of a checkpoint to keep; None keeps all.
    """

    text: str
    path: Path
    backend: str | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    size: Size | None = None
    stacks: int | None = None

    @property
    def name(self) -> str:
        """What was typed, without the folders."""
        return re.split(r"[/\\]", self.text.rstrip("/\\"))[-1]

    def subject(self, threads: int) -> Subject:
        """Return the model and how it runs, with so many threads."""
        return Subject(self.path, self.backend, self.size, self.flip, self.scales, self.stacks, threads)


def parse_contestant(text: str) -> Contestant:
    """Read ``MODEL[@BACKEND][:OPTION]...``; what exists as it was typed is a model without options.

    Raises:
        argparse.ArgumentTypeError: An option is unknown, given twice, or its value does not hold; or the model takes no
            such backend or option.
    """
    if os.path.lexists(text):
        return Contestant(text, Path(text))
    folder, slash, last = text.rpartition("/")
    name, *options = last.split(":")
    name, at, backend = name.partition("@")
    values: dict[str, Any] = {"backend": backend} if at else {}
    for option in options:
        key, value = _option(option)
        if key in values:
            raise argparse.ArgumentTypeError(f"{text}: {key} is given twice")
        values[key] = value
    if not folder + name or (at and not backend):
        raise argparse.ArgumentTypeError(f"expected {FORM}, got {text!r}")
    contestant = Contestant(text, Path(folder + slash + name), **values)
    _check(contestant)
    return contestant


def check_size(contestant: Contestant) -> None:
    """Look into a bundle for whether it takes the size that is asked for, before anything is opened.

    Raises:
        SizeError: It does not.
    """
    if contestant.size is None or not contestant.path.is_dir():
        return
    with contextlib.suppress(BundleError):  # which opening it tells
        spec = read_manifest(contestant.path, check_engine=False).spec
        try:
            spec.check_input_size(contestant.size)
        except SizeError as error:
            raise SizeError(f"{contestant.text}: {error}") from error


def disk_bytes(path: Path, backend: str) -> int:
    """Return the size of the files that a backend reads of a model: an engine, or the ONNX file with its data."""
    if path.is_dir():
        path /= ENGINE_NAME if backend == "tensorrt" else ONNX_NAME
    return sum(part.stat().st_size for part in (path, path.with_name(f"{path.name}.data")) if part.is_file())


def _check(contestant: Contestant) -> None:
    """Raise ArgumentTypeError for what is wrong whatever lies at the path."""
    is_checkpoint = contestant.path.suffix in CHECKPOINTS
    known = TORCH_BACKENDS if is_checkpoint else BACKENDS
    if contestant.backend is not None and contestant.backend not in known:
        what = "a checkpoint" if is_checkpoint else "a bundle or an .onnx file"
        raise argparse.ArgumentTypeError(
            f"{contestant.text}: {what} runs in {', '.join(known)}, got {contestant.backend!r}"
        )
    if contestant.stacks is not None and not is_checkpoint:
        raise argparse.ArgumentTypeError(
            f"{contestant.text}: a checkpoint is cut as it is opened; export this one again with "
            f"--stacks {contestant.stacks}"
        )


def _option(option: str) -> tuple[str, Any]:
    key, equals, value = option.partition("=")
    if option == "flip":
        return "flip", True
    if equals and key == "scales":
        return key, parse_scales(value)
    if equals and key == "size":
        return key, parse_size(value)
    if equals and key == "stacks" and value.isdecimal() and int(value) > 0:
        return key, int(value)
    raise argparse.ArgumentTypeError(f"expected an option flip, scales=S,S,..., size=HxW or stacks=N, got {option!r}")

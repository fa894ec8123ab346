"""What a TensorRT engine needs to run, as ``bundle.json`` keeps it, and whether a machine has that.

A plan is bound to a TensorRT version and a GPU. TensorRT finds out only when it reads the plan, and says so in a log
line; here it is known before, from the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Shape = tuple[int, int, int, int]  # of the input: batch, 3, height, width
Compatibility = Literal["none", "ampere_plus", "same_compute_capability"]


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Input shapes that an engine accepts together, [N, 3, H, W] each.

    Attributes:
        minimum: No dimension may be smaller.
        optimum: What the engine was tuned for.
        maximum: No dimension may be larger.
    """

    minimum: Shape
    optimum: Shape
    maximum: Shape

    def accepts(self, shape: Shape) -> bool:
        """Return whether an input of this shape fits."""
        return all(low <= side <= high for low, side, high in zip(self.minimum, shape, self.maximum, strict=True))

    def __str__(self) -> str:
        def text(shape: Shape) -> str:
            return "x".join(map(str, shape))

        return text(self.minimum) if self.minimum == self.maximum else f"{text(self.minimum)} to {text(self.maximum)}"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """The library that computes corner pooling in an engine: its version, and the SHA-256 of the file it was."""

    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What an engine was built with, and what came out.

    Attributes:
        tensorrt: Version of TensorRT.
        gpu: Name of the GPU.
        compute_capability: Of the GPU, such as ``9.0``.
        profiles: Shapes that it accepts.
        plugin: None when corner pooling is computed by the standard operators of the ONNX file.
        portable: Whether it also runs on later TensorRT versions; such a plan carries code, plugin included.
        hardware_compatibility: On which other GPUs it runs.
        tf32: Whether float32 may be rounded to TF32 inside.
        precisions: How many layer outputs are of each type, as TensorRT's inspector tells.
        layers: How many layers the profiles have together.
        plugin_layers: How many of them the plugin computes.
        reformat_layers: How many only bring a tensor into another layout.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    profiles: tuple[EngineProfile, ...]
    plugin: PluginRecord | None = None
    portable: bool = False
    hardware_compatibility: Compatibility = "none"
    tf32: bool = False
    precisions: dict[str, int] = field(default_factory=dict)
    layers: int = 0
    plugin_layers: int = 0
    reformat_layers: int = 0


@dataclass(frozen=True, slots=True)
class EngineMachine:
    """What of a machine decides whether an engine runs there; fields as in ``EngineRecord``."""

    tensorrt: str
    gpu: str
    compute_capability: str


def why_not_here(record: EngineRecord, machine: EngineMachine) -> str | None:
    """Return why an engine cannot run on a machine, or None if nothing speaks against it."""
    if not _version_fits(record, machine.tensorrt):
        extent = "or later, of the same major version" if record.portable else "exactly"
        return f"it was built with TensorRT {record.tensorrt} and needs that {extent}; here is {machine.tensorrt}"
    if not _gpu_fits(record, machine.compute_capability):
        return (
            f"it was built for compute capability {record.compute_capability} ({record.gpu})"
            f"{' or later' if record.hardware_compatibility == 'ampere_plus' else ''}; "
            f"here is {machine.compute_capability} ({machine.gpu})"
        )
    return None


def _version_fits(record: EngineRecord, here: str) -> bool:
    if not record.portable:
        return record.tensorrt == here
    built, runs = _numbers(record.tensorrt), _numbers(here)
    return built[0] == runs[0] and built <= runs


def _gpu_fits(record: EngineRecord, here: str) -> bool:
    if record.hardware_compatibility == "ampere_plus":
        return _numbers(here) >= (8, 0)
    return record.compute_capability == here


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, (0,) where there are none."""
    return tuple(int(part) for part in version.split(".") if part.isdigit()) or (0,)

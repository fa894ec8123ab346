"""What a self-test is asked for, and what it comes to."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cornernet_bench.kernels.checkout_tests import CHECKOUT
from cornernet_runtime.bundle.records import to_json

State = Literal["passed", "partly", "failed", "skipped", "interrupted"]

SCHEMA_VERSION = 2
LAYERS = {  # what each proves
    "L1": "kernels compute the reference, on the CPU",
    "L2": "kernels compile for every architecture",
    "L3": "TensorRT's registry takes the plugin library",
    "L4": "every call exists in the installed bindings",
    "L5": "kernels compute the reference, on the GPU",
    "L6": "the whole path, from frame to detections",
}
DOCTOR = "doctor"
MODEL = "model"  # whether it is one
PROGRESS = "\x1e"  # begins a line of a layer that is for people


@dataclass(frozen=True, slots=True)
class Request:
    """What to do.

    Attributes:
        layers: Some of ``LAYERS``.
        model: For L6, a bundle, an ``.onnx`` file or a checkpoint; None takes the model of a checkout.
        architectures: For L2, compute capabilities times ten; none takes all.
        images: For L6, a picture or a folder of them; None draws scenes, which suit the shipped model.
        scenes: How many are drawn.
        frames: Frames that L6 times, and over which memory may not grow.
        limit_s: Seconds after which a layer is ended and has failed.
        checkout: Where the tests of L1, L3 and L4 and the model of L6 are; it may be none.
    """

    layers: tuple[str, ...] = tuple(LAYERS)
    model: str | None = None
    architectures: tuple[int, ...] = ()
    images: str | None = None
    scenes: int = 200
    frames: int = 200
    limit_s: float = 3600.0
    checkout: str = str(CHECKOUT)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a layer says of itself.

    Attributes:
        state: What was done held, and was all there is or but a part of it, or did not hold, or nothing could be done,
            or the user interrupted; None while it is under way.
        said: What, or why, in a line.
        figures: What was measured, as JSON, the unit in the name of a key.
        output: The end of what it printed.
    """

    state: State | None
    said: str
    figures: dict[str, Any] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a layer ended.

    Attributes:
        layer: Of ``LAYERS``.
        proves: What it is for.
        state: As for ``Finding``.
        said: As for ``Finding``.
        seconds: That it took.
        figures: As for ``Finding``; of a layer that was ended, those until then.
        output: As for ``Finding``.
    """

    layer: str
    proves: str
    state: State
    said: str
    seconds: float
    figures: dict[str, Any]
    output: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found out, to be attached to a report of a defect.

    Attributes:
        schema_version: Of this record.
        version: Of this project.
        date: When it began, in UTC.
        command: That was typed.
        partial: Whether layers are missing, because it is under way or was interrupted.
        state: As for ``joint_state``.
        versions: Of installed distributions that matter, by name.
        doctor: What ``cornernet-doctor --report`` writes.
        layers: That have ended, in order.
        not_run: Names of layers that were asked for and have not been begun, or are under way.
    """

    schema_version: int
    version: str
    date: str
    command: str
    partial: bool
    state: State
    versions: dict[str, str]
    doctor: dict[str, Any]
    layers: tuple[Outcome, ...] = ()
    not_run: tuple[str, ...] = ()

    def with_layer(self, outcome: Outcome) -> Report:
        """Return the report with one more layer."""
        layers = (*self.layers, outcome)
        not_run = tuple(name for name in self.not_run if name != outcome.layer)
        return replace(self, layers=layers, not_run=not_run, state=joint_state([layer.state for layer in layers]))

    def text(self) -> str:
        """Return it as JSON that names neither the user nor the user's home folder."""
        return json.dumps(without_user(to_json(self)), indent=2) + "\n"


def joint_state(states: list[State]) -> State:
    """Return how parts ended together: the first of failed, partly and passed that one of them did, else skipped."""
    ordered: tuple[State, ...] = ("failed", "partly", "passed")
    return next((state for state in ordered if state in states), "skipped")


def without_user(value: Any) -> Any:  # noqa: ANN401 - JSON is any of six types
    """Return JSON whose texts hold ``~`` for the user's home folder, and ``USER`` for a folder of the user's name."""
    if isinstance(value, dict):
        return {key: without_user(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_user(item) for item in value]
    if not isinstance(value, str):
        return value
    with contextlib.suppress(RuntimeError):  # there is no home folder
        home = str(Path.home())
        value = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value) if len(home) > 1 else value
    with contextlib.suppress(OSError, KeyError, ImportError):  # no name
        value = re.sub(rf"(?<=/){re.escape(getpass.getuser())}(?=/|$)", "USER", value)
    return value

"""What training needs to go on exactly where it was, in one file that executes nothing when it is read."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from cornernet_runtime.errors import CheckpointError, CornerNetError
from cornernet_runtime.files import open_atomically

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Training after ``step`` steps.

    Attributes:
        identity: What must not change: recipe, classes, data sets, the checkpoint that it began with; plain JSON.
        step: Optimiser steps done.
        model: Weights and batch norm statistics.
        average: The same of the running mean.
        optimizer: Of AdamW.
        log: Rows and unfinished means of the log.
        best_ap: Highest validation AP so far, points; None before the first.
        best_step: Step of that.
        unreadable: Pictures that could not be read so far.
        random: State of PyTorch's generator.
    """

    identity: dict[str, Any]
    step: int
    model: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    log: dict[str, Any]
    best_ap: float | None
    best_step: int
    unreadable: int
    random: torch.Tensor


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state under a temporary name and rename it.

    Raises:
        OutputError: The file cannot be written; the one before it stays.
    """
    content = {field.name: getattr(state, field.name) for field in fields(state)}
    with open_atomically(path) as stream:
        try:
            torch.save({"version": VERSION, **content}, stream)
        except RuntimeError as error:  # PyTorch ends its archive even where the disk is full, and complains of that
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_state(path: Path) -> TrainingState:
    """Read a state with the unpickler that makes tensors and plain containers and nothing else.

    Raises:
        CheckpointError: Missing, truncated, not a training state, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, so there is nothing to resume; leave --resume away") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a whole training state ({type(error).__name__})") from error
    names = {field.name for field in fields(TrainingState)}
    if not isinstance(content, dict) or set(content) != names | {"version"} or content["version"] != VERSION:
        raise CheckpointError(f"{path}: not a training state of this version; train anew in another folder")
    return TrainingState(**{name: content[name] for name in names})


def check_identity(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with anything else than what was begun.

    Raises:
        CornerNetError: They differ; the message says in what.
    """
    old, new = _flat(before), _flat(now)
    differences = [
        f"{name} was {old.get(name, 'absent')} and is now {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "absent") != new.get(name, "absent")
    ]
    if differences:
        raise CornerNetError(
            f"{path}: cannot resume with another configuration: {'; '.join(differences)}; "
            "give what was given then, or choose another folder",
        )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as one, their names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

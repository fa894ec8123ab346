"""Checkpoints that others trained: princeton-vl's CornerNet and CornerNet-Lite, and mmdetection's CornerNet.

They are pickles, so they are read by PyTorch's weights-only unpickler, which makes tensors and plain containers and
refuses everything else. The families differ in the names of their tensors (``published_names``) and in how a picture
becomes input and maps become boxes, which are tables here.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from cornernet_export.coco import COCO_CLASSES
from cornernet_export.model import preset
from cornernet_export.published_names import translate
from cornernet_runtime.bundle.spec import DecodeParameters, ModelSpec, NmsParameters, Normalisation
from cornernet_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_export.model import CornerNetConfig

MOST_CLASSES = 100_000
TRAINED_SIZE = (511, 511)  # of every published model


@dataclass(frozen=True, slots=True)
class Family:
    """A group of checkpoints that name their tensors alike and treat pictures alike.

    Attributes:
        name: As in ``published_names``.
        arch: Preset of the network.
        normalisation: Picture to input.
        decode: Maps to candidates.
        nms: Candidates to detections.
    """

    name: str
    arch: str
    normalisation: Normalisation = Normalisation()  # noqa: RUF009 - frozen
    decode: DecodeParameters = DecodeParameters()  # noqa: RUF009 - frozen
    nms: NmsParameters = NmsParameters()  # noqa: RUF009 - frozen


_MMDETECTION_MEAN = (123.675, 116.28, 103.53)  # grey levels, RGB; also the colour of the border
_MMDETECTION_STD = (58.395, 57.12, 57.375)

PRINCETON = Family("princeton", "cornernet-104")
LITE = Family("lite", "cornernet-104")
SQUEEZE = Family("lite", "cornernet-squeeze", decode=DecodeParameters(top_k=20, candidates=100))
MMDETECTION = Family(
    "mmdetection",
    "cornernet-104",
    normalisation=Normalisation(
        channel_order="rgb",
        mean=(_MMDETECTION_MEAN[0] / 255, _MMDETECTION_MEAN[1] / 255, _MMDETECTION_MEAN[2] / 255),
        std=(_MMDETECTION_STD[0] / 255, _MMDETECTION_STD[1] / 255, _MMDETECTION_STD[2] / 255),
        pad=_MMDETECTION_MEAN,
    ),
    decode=DecodeParameters(reject_empty=True),
    nms=NmsParameters(pixel_extent=0.0),
)


def load_published(path: Path, arch: str | None = None) -> tuple[CornerNetConfig, ModelSpec, dict[str, torch.Tensor]]:
    """Read a published checkpoint: what it is, how to use it, and its tensors under our names.

    Args:
        path: A ``.pkl`` or ``.pth`` file.
        arch: Preset to expect; by default what the tensor names show.

    Returns:
        Config and spec, with as many classes and stacks as the file has, and every tensor but batch norms' counters.
        Classes are COCO's where there are 80, else ``class_0`` and so on.

    Raises:
        CheckpointError: Truncated, not a checkpoint, would execute something, of no family known here, or of another
            architecture than ``arch``.
    """
    content = _unpickle(path)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path}: expected a state_dict of tensors, got {_describe(state)}")
    named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    family = _recognise(named, str(path))
    expected = preset(family.arch)
    if arch is not None and arch != family.arch:
        raise CheckpointError(f"{path}: it is a {family.arch}, not a {arch}; leave --arch away")
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".num_batches_tracked"):
            continue
        ours = translate(name.removeprefix("module."), family.name, expected.unit)
        if ours in tensors or not tensor.is_floating_point():
            problem = "stands there twice" if ours in tensors else f"is {tensor.dtype}, not a floating type"
            raise CheckpointError(f"{path}: tensor {name} {problem}")
        tensors[ours] = tensor.float()
    config = replace(expected, classes=_count_classes(tensors, str(path)), stacks=_count_stacks(tensors, str(path)))
    names = COCO_CLASSES if config.classes == len(COCO_CLASSES) else [f"class_{i}" for i in range(config.classes)]
    spec = ModelSpec(
        name=config.name,
        class_names=tuple(names),
        stride=config.stride,
        modulus=config.modulus,
        input_size=TRAINED_SIZE,
        largest_size=TRAINED_SIZE,
        normalisation=family.normalisation,
        decode=family.decode,
        nms=family.nms,
    )
    return config, spec, tensors


class _Stub:
    """Stands for a class of training state beside the weights; takes whatever it is given and keeps nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


# How NumPy pickles its own; it moved from numpy.core to numpy._core.
_NUMPY_ARRAY: Callable[..., Any] = cast("Any", np.empty(0).__reduce__()[0])
_NUMPY_SCALAR: Callable[..., Any] = cast("Any", np.float64(0).__reduce__()[0])

# What mmdetection's training loop stores beside the weights: logged numbers, as NumPy arrays in history buffers. The
# stand-ins have the names of the real things, so that neither those nor Python's getattr are ever called.
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Stub, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_Stub, "builtins.getattr"),
    *((_NUMPY_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]


def _unpickle(path: Path) -> Mapping[str, object]:
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how pickles of other kinds should be read: not at all
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds more than tensors and plain containers{_refused_global(error)}, or is no "
            "checkpoint; save the state_dict alone",
        ) from error
    except Exception as error:  # whatever a cut or damaged pickle leads the unpickler to; nothing of it was called
        raise CheckpointError(
            f"{path}: PyTorch cannot read it: it is no checkpoint, or not a whole one; fetch it again",
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a state_dict, got {_describe(content)}")
    return content


def _recognise(names: Mapping[str, torch.Tensor], source: str) -> Family:
    """Return the family that tensors of these names belong to."""

    def has(part: str) -> bool:
        return any(part in name for name in names)

    if has("att_modules."):
        raise CheckpointError(f"{source}: CornerNet-Saccade, which looks at a picture in many crops, is not supported")
    if has("backbone.hourglass_modules."):
        return MMDETECTION
    if has("hg.hgs."):
        return SQUEEZE if has("conv_1x1") else LITE
    if has("kps."):
        return PRINCETON
    first = ", ".join(list(names)[:3]) or "nothing"
    raise CheckpointError(
        f"{source}: no CornerNet that is known here: expected names such as kps.0..., hg.hgs.0... or "
        f"backbone.hourglass_modules.0..., got {first}",
    )


def _count_classes(tensors: Mapping[str, torch.Tensor], source: str) -> int:
    heats = [tensor for name, tensor in tensors.items() if name.endswith(".heat.2.weight")]
    if not heats:
        raise CheckpointError(f"{source}: it has no heat branch, whose last convolution tells the number of classes")
    shape = list(heats[-1].shape)
    if len(shape) != 4 or not 1 <= shape[0] <= MOST_CLASSES:
        raise CheckpointError(
            f"{source}: the last convolution of its heat branch has shape {shape}, whose first number should be the "
            f"classes, 1 to {MOST_CLASSES}"
        )
    return shape[0]


def _count_stacks(tensors: Mapping[str, torch.Tensor], source: str) -> int:
    stacks = {name.split(".")[1] for name in tensors if name.startswith("outputs.")}
    if not stacks:
        raise CheckpointError(f"{source}: it has no convolution behind an hourglass, which tells the number of stacks")
    return len(stacks)


def _describe(value: object) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Mapping) else type(value).__name__


def _refused_global(error: Exception) -> str:
    """Return what the file wanted to call, where PyTorch names it; the rest of its message is advice to call it."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({named[1]})" if named else ""

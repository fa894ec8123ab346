"""The six corner maps that every backend produces, under the names that the ONNX outputs bear."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from cornernet_runtime.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class CornerMaps:
    """Output of the network for a batch, or for one picture without the leading dimension.

    Attributes:
        tl_heat: float32 [N, C, h, w], logits of top-left corners.
        br_heat: float32 [N, C, h, w], logits of bottom-right corners.
        tl_embed: float32 [N, 1, h, w], embedding that pairs corners of one object.
        br_embed: float32 [N, 1, h, w].
        tl_offset: float32 [N, 2, h, w], x and y within the cell, cells.
        br_offset: float32 [N, 2, h, w].
    """

    tl_heat: NDArray[np.float32]
    br_heat: NDArray[np.float32]
    tl_embed: NDArray[np.float32]
    br_embed: NDArray[np.float32]
    tl_offset: NDArray[np.float32]
    br_offset: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tl_heat)

    def __getitem__(self, index: int | NDArray[np.intp]) -> CornerMaps:
        """Return the maps of one picture of the batch, as views, or of several, copied."""
        return CornerMaps(*(getattr(self, name)[index] for name in OUTPUT_NAMES))


OUTPUT_NAMES: tuple[str, ...] = tuple(field.name for field in fields(CornerMaps))
INPUT_NAME = "image"


def output_channels(spec: ModelSpec) -> dict[str, int]:
    """Return how many channels each output of a model of this spec has."""
    classes = len(spec.class_names)
    return {name: {"heat": classes, "embed": 1, "offset": 2}[name.split("_")[1]] for name in OUTPUT_NAMES}


def check_output_names(names: Collection[str], source: str) -> None:
    """Raise ModelError unless a file has the six outputs; ``source`` names the file."""
    missing = [name for name in OUTPUT_NAMES if name not in names]
    if missing:
        raise ModelError(
            f"{source}: not a CornerNet exported by cornernet-export: outputs missing: {', '.join(missing)} "
            f"(it has {', '.join(names) or 'none'})",
        )


def check_output_shapes(shapes: Mapping[str, Sequence[int | str | None]], spec: ModelSpec, source: str) -> None:
    """Raise ModelError unless channel counts, and map sizes where the file fixes them, are those of ``spec``.

    An output that is taken for another would give right classes and wrong boxes without any error.
    """
    for name, channels in output_channels(spec).items():
        expected = (channels, *spec.map_size)
        found = shapes[name][1:]
        if len(found) != 3 or any(
            isinstance(have, int) and have != want for have, want in zip(found, expected, strict=True)
        ):
            raise ModelError(
                f"{source}: output {name} has shape {list(shapes[name])}, "
                f"its metadata says [batch, {', '.join(map(str, expected))}]",
            )

"""What an ONNX file must be to run as a CornerNet, whichever backend loads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_runtime.bundle.spec import ModelSpec, spec_from_text
from cornernet_runtime.errors import ModelError
from cornernet_runtime.processing.maps import INPUT_NAME, check_output_names, check_output_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA_KEY = "cornernet"
MAX_BATCH = (
    2  # of a file that takes any, unless exported for more: on a CPU more pictures a run save no time and cost memory
)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a file.

    Attributes:
        shape: Its sides; a free one is None or a name.
        element: ``float32``, or what the backend calls another type.
    """

    shape: tuple[int | str | None, ...]
    element: str


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A loaded file as it describes itself.

    Attributes:
        source: Names the file in errors.
        inputs: By name.
        outputs: By name.
        metadata: The spec as text; None when the file has none.
    """

    source: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    metadata: str | None

    def own_spec(self) -> ModelSpec:
        """Return the spec in the metadata; a file without the six outputs is told apart first, for its error.

        Raises:
            ModelError: There is none, or it does not hold.
        """
        check_output_names(self.outputs, self.source)
        if self.metadata is None:
            raise ModelError(
                f"{self.source}: its metadata lacks the key {METADATA_KEY!r}; export it with cornernet-export"
            )
        return spec_from_text(self.metadata, self.source)

    def check(self, spec: ModelSpec) -> None:
        """Raise ModelError unless inputs and outputs are those of the spec."""
        check_output_names(self.outputs, self.source)
        check_output_shapes({name: port.shape for name, port in self.outputs.items()}, spec, self.source)
        expected = [3, *(spec.input_size if spec.fixed else (None, None))]
        shape = self.inputs[INPUT_NAME].shape if INPUT_NAME in self.inputs else ()
        found = [side if isinstance(side, int) else None for side in shape[1:]]
        if list(self.inputs) != [INPUT_NAME] or found != expected:
            sides = ", ".join(map(str, spec.input_size)) if spec.fixed else "height, width"
            shapes = {name: list(port.shape) for name, port in self.inputs.items()}
            raise ModelError(f"{self.source}: expected one input {INPUT_NAME} [batch, 3, {sides}], got {shapes}")
        if spec.free_batch and isinstance(shape[0], int):
            raise ModelError(
                f"{self.source}: its metadata says batches of up to {spec.batch[2]}, its input takes {shape[0]} only"
            )
        for name, port in (*self.inputs.items(), *self.outputs.items()):
            if port.element != "float32":
                raise ModelError(
                    f"{self.source}: {name} is {port.element}, not float32; export it with cornernet-export"
                )

    def largest_batch(self, spec: ModelSpec) -> int:
        """Return the most pictures that one run is to take."""
        batch = self.inputs[INPUT_NAME].shape[0]
        return batch if isinstance(batch, int) else max(spec.batch[2], MAX_BATCH * spec.dynamic)


def first_line(error: Exception) -> str:
    """Return the first line of what a library says, or the error's type."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

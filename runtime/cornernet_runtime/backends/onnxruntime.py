"""ONNX Runtime: runs the exported file as it is, corner pooling by the function bodies that the file carries."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from cornernet_runtime.errors import BackendError, ModelError
from cornernet_runtime.maps import (
    INPUT_NAME,
    OUTPUT_NAMES,
    CornerMaps,
    check_output_names,
    check_output_shapes,
)
from cornernet_runtime.spec import ModelSpec, spec_from_text

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

METADATA_KEY = "cornernet"
MAX_BATCH = (
    2  # of a file that takes any, unless exported for more: on a CPU more pictures a run save no time and cost memory
)


class OnnxRuntimeBackend:
    """An ``.onnx`` file in ONNX Runtime on the CPU.

    Args:
        path: The file.
        spec: How to use it, from the bundle; by default what stands in the file's metadata.
        threads: Threads inside one operator; 0 takes one a core.

    Raises:
        BackendError: ONNX Runtime is not installed.
        ModelError: The file cannot be loaded, or is not a CornerNet of ours.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, spec: ModelSpec | None = None, threads: int = 0) -> None:
        try:
            import onnxruntime as ort  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise BackendError(
                "ONNX Runtime is not installed; pip install onnxruntime",
            ) from error
        ort.disable_telemetry_events()  # some builds report home
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: what it warns of here (unused initialisers) helps no user
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self.spec = spec or _embedded_spec(session, str(path))
        _check_model(session, self.spec, str(path))
        batch = session.get_inputs()[0].shape[0]
        self.max_batch = batch if isinstance(batch, int) else max(self.spec.batch[2], MAX_BATCH * self.spec.dynamic)
        self._session = session

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W].

        Raises:
            SizeError: H and W are no size that the file computes correctly.
        """
        self.spec.check_input_size((images.shape[2], images.shape[3]))
        return CornerMaps(*self._session.run(OUTPUT_NAMES, {INPUT_NAME: images}))

    def clone(self) -> Self:
        """Return a backend of the same session, which several threads may run at once."""
        return copy.copy(self)

    def close(self) -> None:
        """Let go of the session, which clones keep."""
        del self._session


def _embedded_spec(session: Any, source: str) -> ModelSpec:  # noqa: ANN401 - onnxruntime has no types
    """Return the spec in the file's metadata; a file without the six outputs is told apart first, for its error."""
    check_output_names([output.name for output in session.get_outputs()], source)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(f"{source}: its metadata lacks the key {METADATA_KEY!r}; export it with cornernet-export")
    return spec_from_text(text, source)


def _check_model(session: Any, spec: ModelSpec, source: str) -> None:  # noqa: ANN401
    """Raise ModelError unless the file's inputs and outputs are those of the spec."""
    outputs = {output.name: output.shape for output in session.get_outputs()}
    check_output_names(outputs, source)
    check_output_shapes(outputs, spec, source)
    inputs = {item.name: item.shape for item in session.get_inputs()}
    expected = [3, *(spec.input_size if spec.fixed else (None, None))]
    found = [side if isinstance(side, int) else None for side in inputs.get(INPUT_NAME, [])[1:]]  # free ones have names
    if list(inputs) != [INPUT_NAME] or found != expected:
        sides = ", ".join(map(str, spec.input_size)) if spec.fixed else "height, width"
        raise ModelError(f"{source}: expected one input {INPUT_NAME} [batch, 3, {sides}], got {inputs}")
    batch = inputs[INPUT_NAME][0]
    if spec.free_batch and isinstance(batch, int):
        raise ModelError(f"{source}: its metadata says batches of up to {spec.batch[2]}, its input takes {batch} only")
    for item in (*session.get_inputs(), *session.get_outputs()):
        if item.type != "tensor(float)":
            raise ModelError(f"{source}: {item.name} is {item.type}, not float32; export it with cornernet-export")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__

"""ONNX Runtime: runs the exported file as it is, corner pooling by the function bodies that the file carries."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from cornernet_runtime.backends.onnx_file import METADATA_KEY, OnnxFile, Port, first_line
from cornernet_runtime.backends.threads import check_threads
from cornernet_runtime.errors import BackendError, ModelError
from cornernet_runtime.processing.maps import INPUT_NAME, OUTPUT_NAMES, CornerMaps

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec

# In an INT8 file it moves transposes from before corner pooling into it, where they are of float32 and slow.
NOT_OPTIMISED = ["TransposeOptimizer"]
SPIN_US = 20  # most gaps between the parts of a network are shorter, and to be woken takes longer (docs/cpu.md)


class OnnxRuntimeBackend:
    """An ``.onnx`` file in ONNX Runtime on the CPU.

    Args:
        path: The file.
        spec: How to use it, from the bundle; by default what stands in the file's metadata.
        threads: Threads inside one operator; by default one for each core that this process may use.

    Raises:
        BackendError: ONNX Runtime is not installed, or ``threads`` is below one.
        ModelError: The file cannot be loaded, or is not a CornerNet of ours.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, spec: ModelSpec | None = None, threads: int | None = None) -> None:
        try:
            import onnxruntime as ort  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise BackendError(
                "ONNX Runtime is not installed; pip install onnxruntime",
            ) from error
        ort.disable_telemetry_events()  # some builds report home
        options = _session_options(ort, check_threads(threads))
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_OPTIMISED
            )
        except Exception as error:
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
        file = _describe(session, str(path))
        self.spec = spec or file.own_spec()
        file.check(self.spec)
        self.max_batch = file.largest_batch(self.spec)
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


def _session_options(ort: Any, threads: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Return what was chosen by measurement (docs/cpu.md); all else is as ONNX Runtime has it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # stated, its threads are pinned to no core
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if _spins_briefly(ort) else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # at the end of each run
    options.enable_mem_pattern = False  # saves no time, and keeps a plan for each input shape seen
    options.log_severity_level = 3  # errors only: what it warns of here (unused initialisers) helps no user
    return options


def _spins_briefly(ort: Any) -> bool:  # noqa: ANN401
    """Return whether ONNX Runtime lets it be said how long threads wait for work in a loop before they sleep.

    Versions before 1.26 do not: they wait for milliseconds, and take the cores from whatever else runs.
    """
    return tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 26)


def _describe(session: Any, source: str) -> OnnxFile:  # noqa: ANN401
    """Return what a session says of its file."""
    inputs, outputs = (
        {item.name: Port(tuple(item.shape), "float32" if item.type == "tensor(float)" else item.type) for item in items}
        for items in (session.get_inputs(), session.get_outputs())
    )
    return OnnxFile(source, inputs, outputs, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))

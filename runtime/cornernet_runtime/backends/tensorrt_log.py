"""What TensorRT says: kept, so that an error of ours can tell the reason, and not printed."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import Any

from cornernet_runtime.errors import BackendError

KEPT = 20
INSTALL = "pip install tensorrt"


def import_tensorrt() -> Any:  # noqa: ANN401 - an extra
    """Return the module ``tensorrt``.

    Raises:
        BackendError: It is not installed, or its libraries do not load.
    """
    try:
        import tensorrt  # noqa: PLC0415 - an extra
    except ImportError as error:
        if getattr(error, "name", None) == "tensorrt":
            raise BackendError(f"TensorRT is not installed; {INSTALL}") from error
        raise BackendError(f"TensorRT does not load ({error}); {INSTALL}") from error
    except OSError as error:
        raise BackendError(f"TensorRT does not load ({error}); {INSTALL}") from error
    return tensorrt


class Remarks:
    """The last errors and warnings of TensorRT, and its logger.

    Attributes:
        logger: A ``tensorrt.ILogger`` to give to what TensorRT makes; lives as long as that.
    """

    def __init__(self, trt: Any) -> None:  # noqa: ANN401
        self.errors: deque[str] = deque(maxlen=KEPT)
        self.warnings: deque[str] = deque(maxlen=KEPT)
        self.logger = _logger(trt, self)

    def reason(self) -> str:
        """Return the first of the last errors, which the others follow from, in one line."""
        return next(iter(self.errors), "TensorRT gives no reason")

    def made(self, thing: Any, what: str) -> Any:  # noqa: ANN401
        """Return ``thing`` unless it is None, TensorRT's way to say no.

        Raises:
            BackendError: It is None.
        """
        if thing is None:
            raise BackendError(f"{what}: {self.reason()}")
        return thing

    def construct(self, kind: Any, *arguments: Any) -> Any:  # noqa: ANN401
        """Return ``kind(*arguments)``, a Builder, Runtime or parser.

        Without a working driver the bindings raise a TypeError that gives no reason, or log the reason and hand out an
        object all the same, which crashes the process when it is destroyed (seen with 11.4); so it never is.

        Raises:
            BackendError: It cannot be made, mostly because there is no GPU or its driver is too old.
        """
        self.errors.clear()
        try:
            made = kind(*arguments)
        except TypeError as error:
            if not self.errors and "nullptr" not in str(error):
                raise
            raise BackendError(self._why_not_started()) from error
        if self.errors:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
            raise BackendError(self._why_not_started())
        return made

    def _why_not_started(self) -> str:
        reason = self.reason()
        if "error: 35" in reason or "insufficient" in reason.lower():
            reason = f"the NVIDIA driver is too old for it ({reason}); update the driver"
        return f"TensorRT cannot start: {reason}"


def _logger(trt: Any, remarks: Remarks) -> Any:  # noqa: ANN401
    severity_of = trt.ILogger.Severity
    bad = (severity_of.INTERNAL_ERROR, severity_of.ERROR)
    doubtful = severity_of.WARNING

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of an extra
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants it by name

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            if severity in bad:
                remarks.errors.append(" ".join(msg.split()))
            elif severity == doubtful:
                remarks.warnings.append(" ".join(msg.split()))

    return Logger()

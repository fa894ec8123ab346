"""A build that can be watched and stopped: TensorRT works in a thread, the caller keeps the terminal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESH_SECONDS = 0.5  # whoever redraws often takes time from the timing of kernels


def run_watched(work: Callable[[], Any], monitor: Any, tell: Callable[[str], None]) -> Any:  # noqa: ANN401
    """Run ``work`` in a thread, telling the phase and the elapsed time, and return what it returns.

    Args:
        work: Blocks in TensorRT.
        monitor: As ``progress_monitor`` returns it; TensorRT reports to it.
        tell: Shown to the user.

    Raises:
        KeyboardInterrupt: The user interrupted; the build has ended by then.
    """
    results: list[Any] = []
    failures: list[BaseException] = []

    def run() -> None:
        launched.set()
        try:
            if not monitor.cancelled:
                results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)
        finally:
            ended.set()

    # Not Thread.join: once interrupted, that of Python 3.11 takes a running thread for ended.
    launched, ended = threading.Event(), threading.Event()
    start = time.monotonic()
    try:
        threading.Thread(target=run, name="tensorrt-build", daemon=True).start()
        tell(f"building the engine: {monitor.phase}, 0:00")
        while not ended.wait(REFRESH_SECONDS):
            tell(f"building the engine: {monitor.phase}, {_clock(time.monotonic() - start)}")
    except KeyboardInterrupt:
        monitor.cancelled = True
        tell("stopping the build; once more Ctrl-C to leave at once")
        if launched.is_set():  # a thread that starts only now finds the build cancelled
            ended.wait()
        raise
    if failures:
        raise failures[0]
    return results[0]


def progress_monitor(trt: Any) -> Any:  # noqa: ANN401 - a class of an extra
    """Return a ``tensorrt.IProgressMonitor`` with ``phase``, what is done now, and ``cancelled``, which ends the build.

    TensorRT calls it from several threads and while it times kernels, so it only stores a string.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of an extra
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # pybind11 wants it by name
            self.phase = "starting"
            self.cancelled = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase, num_steps
            self.phase = phase_name

        def step_complete(self, phase_name: str, step: int) -> bool:
            del phase_name, step
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"

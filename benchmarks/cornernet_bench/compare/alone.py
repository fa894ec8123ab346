"""A model opened in a process of its own: for its memory, which models of one process share, and lest it crash this."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import warnings
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from cornernet_bench.measuring.machine import gpu_state, thread_limit
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.opening import first_calls
from cornernet_runtime.errors import BackendError, CornerNetError, CornerNetWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from cornernet_bench.models.opening import Opened
    from cornernet_bench.models.runs import Frame
    from cornernet_bench.models.subject import Subject


def open_alone(subject: Subject, frames: Sequence[Frame]) -> Opened:
    """Open a model and let it look at the frames, the first of which tells its memory, in a process of its own.

    Raises:
        BackendError: The process ended without a word, as when a library crashes.
        CornerNetError: What opening or running the model raised.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would share this process's memory, and its GPU not at all
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_tell, args=(sender, subject, list(frames)), daemon=True)
    try:
        with _without_interrupts():
            process.start()
        sender.close()  # so that the pipe ends when the process does
        found: Opened | CornerNetError = receiver.recv()
    except EOFError:
        process.join()
        raise BackendError(f"{subject.model}: the process that opened it {_end(process.exitcode)}") from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        receiver.close()
    if isinstance(found, CornerNetError):
        raise found
    return found


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that start inside never see Ctrl-C, not even while they import; one that comes meanwhile waits."""
    resource_tracker.ensure_running()  # a process starts it otherwise, and that lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(sender: Connection, subject: Subject, frames: list[Frame]) -> None:
    warnings.simplefilter("ignore", CornerNetWarning)  # the other process opens the model too, and warns
    try:
        gpu = gpu_state()
        with thread_limit(subject.threads, torch=subject.model.suffix in CHECKPOINTS):
            start = time.perf_counter()
            with open_detector(subject) as detector:
                opened = first_calls(subject, detector, frames, time.perf_counter() - start, gpu)
                for frame in frames[1:]:
                    detector(frame)
    except CornerNetError as error:
        sender.send(error)
        return
    sender.send(opened)


def _end(status: int | None) -> str:
    """Say how a process ended."""
    if status is not None and status < 0:
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended with status {status}; its own words stand above"

"""Work on a stream that is captured once for each shape and replayed from then on.

A CUDA graph freezes addresses and shapes, so there is one a shape; the least recently used goes when there are many.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.errors import BackendError, CornerNetError, CornerNetWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Key = TypeVar("Key", bound="Hashable")
LIMIT = 8  # shapes kept: pictures of a stream have one, flip and scales a few
CAPTURES = 2  # tried: another library's thread that waits for the whole GPU ends the first


@dataclass(slots=True)
class _Entry:
    enqueue: Callable[[], None]
    graph: Any = None  # a cuda.core Graph; None until captured


class ShapeGraphs(Generic[Key]):
    """Runs work of several shapes on one stream, as CUDA graphs where that is possible.

    The first run of a shape enqueues the work and waits for it, since TensorRT puts off a part of its preparation until
    then, and captures it after that. If capture fails twice, the user is told once and work is enqueued each time.

    Args:
        stream: The ``cuda.core.Stream``.
        prepare: Given a shape, returns the function that enqueues its work on the stream. It is called again when the
            shape comes back after it was let go of, so nothing that it allocates may be lasting.
        limit: How many shapes are kept.
        what: What the work is, for the warning.
    """

    def __init__(
        self,
        stream: Any,  # noqa: ANN401 - cuda.core is an extra
        prepare: Callable[[Key], Callable[[], None]],
        limit: int = LIMIT,
        what: str = "the network",
    ) -> None:
        self._stream = stream
        self._prepare = prepare
        self._limit, self._what = limit, what
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._capturing = True

    def run(self, key: Key) -> None:
        """Enqueue the work of a shape; the caller waits for the stream.

        Raises:
            BackendError: The first run of a shape, which is waited for, failed.
        """
        entry = self._entries.get(key)
        if entry is None:
            with PREPARATION:
                self._run_first(key)
            return
        self._entries.move_to_end(key)
        if entry.graph is None:
            entry.enqueue()
        else:
            entry.graph.launch(self._stream)

    def close(self) -> None:
        """Let go of all shapes; the stream must have nothing left to do."""
        with PREPARATION:  # a network's memory for a shape goes with it, which may be to wait for the whole GPU
            while self._entries:
                self._forget_oldest()

    def _run_first(self, key: Key) -> None:
        while len(self._entries) >= self._limit:
            self._wait()
            self._forget_oldest()
        entry = _Entry(self._prepare(key))
        entry.enqueue()
        self._wait()
        if self._capturing:
            entry.graph = self._capture(entry.enqueue)
        self._entries[key] = entry  # only now: if the user interrupts the capture, the next run is a first one

    def _capture(self, enqueue: Callable[[], None]) -> Any:  # noqa: ANN401 - cuda.core is an extra
        reason = ""
        for _ in range(CAPTURES):
            try:
                return self._capture_once(enqueue)
            except Exception as error:  # noqa: BLE001 - cuda.core has no common base
                reason = str(error) if isinstance(error, CornerNetError) else f"{type(error).__name__}: {error}"
        self._capturing = False
        warnings.warn(
            f"{self._what} cannot be captured as a CUDA graph and is launched piece by piece, slower: {reason}",
            CornerNetWarning,
            stacklevel=2,
        )
        return None

    def _capture_once(self, enqueue: Callable[[], None]) -> Any:  # noqa: ANN401
        builder, ended = self._stream.create_graph_builder(), False
        try:
            with _garbage_stays():
                builder.begin_building("thread_local")  # what other threads do meanwhile seldom concerns this capture
                enqueue()
                builder.end_building()
                ended = True
                return builder.complete()
        finally:
            if ended:
                with contextlib.suppress(Exception):
                    builder.close()
            else:
                self._give_up(builder)

    def _give_up(self, builder: Any) -> None:  # noqa: ANN401
        """End a capture that failed, and keep its builder for good.

        When the driver ends an invalid capture, it destroys its graph. cuda.core before 1.3 destroys it once more as
        soon as the builder is closed or goes, which ends the process (NVIDIA/cuda-python, number 2834).
        """
        from cuda.bindings import driver  # noqa: PLC0415 - an extra

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(builder))
        driver.cuStreamEndCapture(self._stream.handle)  # an error, if it was invalid, and still its end

    def _wait(self) -> None:
        try:
            self._stream.sync()
        except Exception as error:  # cuda.core has no common base
            raise BackendError(
                f"{self._what} failed: {error}; start the program again, and see what cornernet-doctor says"
            ) from error

    def _forget_oldest(self) -> None:
        _, entry = self._entries.popitem(last=False)
        if entry.graph is not None:
            entry.graph.close()


@contextlib.contextmanager
def _garbage_stays() -> Iterator[None]:
    """Let no garbage be collected meanwhile: memory or graphs among it would be let go of, which ends a capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()

"""PyTorch on streams that it has not made and whose captures it does not know of."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Protocol

import torch

from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from cornernet_runtime.backends.cuda_device import CudaDevice


# Pools whose owners are gone. Where one is destroyed while any thread works in another or captures, PyTorch may end the
# process, so they wait here until none of ours does.
_left: list[Any] = []


class TorchWork(Protocol):
    """Where PyTorch works.

    Attributes:
        device: Of its tensors.
    """

    device: torch.device

    def on(self, stream: int) -> AbstractContextManager[None]:
        """Return a context in which this thread's work goes to a stream, and takes memory that nobody else gets."""


class GpuWork:
    """Work of PyTorch on streams that it has not made, and whose captures it does not know of.

    A graph's memory must stay as it is until the graph is let go of. PyTorch would give it to others as soon as the
    tensor in it is gone, and back to the driver when ``torch.cuda.empty_cache`` is called. So all memory comes from a
    pool that is this object's alone, and that keeps what it has until this object is let go of. A run takes its memory
    from it in the same order each time, hence the same, and on one stream no run meets another's. One thread at a time
    works in a pool.

    Args:
        device: Whose streams.
    """

    def __init__(self, device: CudaDevice) -> None:
        self.device = torch.device("cuda", device.number)
        self._driver = device.driver
        with torch.cuda.device(self.device):
            self._pool = torch.cuda.MemPool()

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            _left.append(self._pool)

    @contextlib.contextmanager
    def on(self, stream: int) -> Iterator[None]:
        """Return a context in which this thread's work goes to a stream, and takes memory of the pool."""
        with (
            PREPARATION,
            torch.cuda.device(self.device),
            torch.cuda.stream(torch.cuda.ExternalStream(stream, device=self.device)),  # type: ignore[no-untyped-call]
            torch.cuda.use_mem_pool(self._pool, self.device),
            self._calls_beside_a_capture(),
        ):
            yield

    @contextlib.contextmanager
    def _calls_beside_a_capture(self) -> Iterator[None]:
        """Let this thread allocate memory and ask for events while it captures, which ends no capture then.

        PyTorch seldom does once the network is prepared, but where it knows of no capture, it may.
        """
        relaxed = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        _, before = self._driver.cuThreadExchangeStreamCaptureMode(relaxed)
        try:
            yield
        finally:
            self._driver.cuThreadExchangeStreamCaptureMode(before)


def give_back_pools() -> None:
    """Give back the memory of works that are gone; this thread neither works in another nor captures."""
    with PREPARATION:
        _left.clear()


@contextlib.contextmanager
def trying_algorithms() -> Iterator[None]:
    """Let cuDNN try its algorithms for every new convolution; the setting is the process's, so hold ``PREPARATION``."""
    settings: Any = torch.backends.cudnn
    before = settings.benchmark
    settings.benchmark = True
    try:
        yield
    finally:
        settings.benchmark = before


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Raise BackendError for what PyTorch raises."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free = re.search(r"of\s+which\s+([\d.]+ \w+) is free", str(error))
        known = f"{_first(error)}, {free[1]} is free" if free else _first(error)
        raise BackendError(  # what PyTorch keeps for others it does not give to a pool
            f"{what}: the GPU has too little memory ({known}); close what else uses it, call torch.cuda.empty_cache(), "
            "or use a smaller input size"
        ) from error
    except RuntimeError as error:
        raise BackendError(
            f"{what}: PyTorch {torch.__version__} cannot run it on this GPU: {_first(error)}; "
            "cornernet-doctor shows what there is"
        ) from error


def _first(error: Exception) -> str:
    """Return the first line of what PyTorch says, without the statistics that follow it."""
    lines = str(error).splitlines()
    return lines[0].split(". GPU ")[0].rstrip(".") if lines else type(error).__name__

"""Cases run on a GPU: their memory, what they leave there, and how long they take.

Times are those of the GPU between two events in one stream. Before each run a buffer larger than the L2 cache is read,
which empties it, and takes long enough that the launches behind it wait in the stream and not for Python. A hot run
follows another of the same, which is not timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cornernet_bench.kernels.flush import CacheFlush
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels.device import LoadedKernels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from cornernet_bench.kernels.case import KernelCase
    from cornernet_bench.kernels.pooling_library import PoolingLibrary

L2_BYTES = 38  # CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
LEAST_FLUSH = 512 << 20
COPY_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What was measured on.

    Attributes:
        name: Of the card.
        capability: Compute capability, such as ``9.0``.
        multiprocessors: How many.
        l2_mib: Size of the L2 cache, MiB.
        cuda_version: Newest version of CUDA that the driver knows.
    """

    name: str
    capability: str
    multiprocessors: int
    l2_mib: float
    cuda_version: str


class Gpu:
    """A GPU with a stream of its own; what is allocated lives until it is closed.

    Raises:
        BackendError: There is none.
        KernelError: The driver refuses something.
    """

    def __init__(self, number: int = 0) -> None:
        cuda = CudaDevice(number)
        self.kernels, self.capability = LoadedKernels(cuda), cuda.capability
        self._driver = driver = cuda.driver
        self._device = self._ask(driver.cuDeviceGet, number)
        self._stream = self._ask(driver.cuStreamCreate, 1)  # CU_STREAM_NON_BLOCKING
        self._owned: list[Any] = []
        l2 = self._ask(driver.cuDeviceGetAttribute, driver.CUdevice_attribute(L2_BYTES), self._device)
        self._flush_bytes = max(LEAST_FLUSH, 4 * l2)
        self._flush: CacheFlush | None = None
        name = self._ask(driver.cuDeviceGetName, 256, self._device)
        version = self._ask(driver.cuDriverGetVersion)
        self.facts = GpuFacts(
            name.split(b"\0")[0].decode(errors="replace"),
            cuda.compute_capability,
            cuda.multiprocessors,
            l2 / 2**20,
            f"{version // 1000}.{version % 1000 // 10}",
        )

    def check(self, case: KernelCase, pooling: PoolingLibrary | None) -> str | None:
        """Run a case twice, as it is and as a captured graph, and return what is wrong with what either left."""
        loaded = _Loaded(self, case, pooling)
        try:
            for way in (loaded.enqueue, loaded.replay):
                loaded.fill()
                way()
                if problem := case.problem(loaded.read()):
                    return problem if way == loaded.enqueue else f"in a captured graph: {problem}"
        finally:
            loaded.close()
        return None

    def time(
        self, cases: Sequence[KernelCase], pooling: PoolingLibrary | None, iterations: int, warm_up: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return microseconds [iterations] of cases of one kind but other values, which take turns: cold, and hot."""
        loaded = [_Loaded(self, case, pooling) for case in cases]
        graphs: list[Any] = []
        runs: list[Callable[[], object]] = []
        try:
            for case, one in zip(cases, loaded, strict=True):
                one.fill()
                if case.graph:
                    graphs.append(self._captured(one.enqueue))
                    runs.append(partial(self._ask, self._driver.cuGraphLaunch, graphs[-1], self._stream))
                else:
                    runs.append(one.enqueue)
            return self._time(runs, iterations, warm_up), self._time(runs, iterations, warm_up, hot=True)
        finally:
            for graph in graphs:
                self._ask(self._driver.cuGraphExecDestroy, graph)
            for one in loaded:
                one.close()

    def time_nothing(self, iterations: int) -> NDArray[np.float64]:
        """Return microseconds [iterations] between two events with nothing between them: part of every figure."""
        return self._time([lambda: None], iterations, 10)

    def copy_bandwidth(self, iterations: int = 20) -> float:
        """Return gigabytes a second that a copy on the device reads and writes together, the median."""
        source, target = self.allocate(COPY_BYTES), self.allocate(COPY_BYTES)
        try:
            times = self._time(
                [lambda: self._ask(self._driver.cuMemcpyDtoDAsync, target, source, COPY_BYTES, self._stream)],
                iterations,
                5,
            )
        finally:
            self.free(source)
            self.free(target)
        return float(2 * COPY_BYTES / np.median(times) / 1e3)

    def allocate(self, nbytes: int) -> int:
        """Return the address of new memory on the device."""
        return int(self._ask(self._driver.cuMemAlloc, max(nbytes, 1)))

    def free(self, address: int) -> None:
        """Let go of memory."""
        self._ask(self._driver.cuMemFree, address)

    def write(self, address: int, array: NDArray[np.generic]) -> None:
        """Copy an array to the device and wait for it; the copy is in another stream than ours."""
        if array.nbytes:
            self._ask(self._driver.cuMemcpyHtoD, address, array.ctypes.data, array.nbytes)
            self._ask(self._driver.cuCtxSynchronize)

    def read(self, address: int, like: NDArray[np.generic]) -> NDArray[np.generic]:
        """Wait for the stream and return an array from the device."""
        array = np.empty_like(like)
        self._ask(self._driver.cuStreamSynchronize, self._stream)
        if array.nbytes:
            self._ask(self._driver.cuMemcpyDtoH, array.ctypes.data, address, array.nbytes)
        return array

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def replay(self, enqueue: Callable[[], object]) -> None:
        """Capture what a function enqueues and launch the graph of it."""
        executable = self._captured(enqueue)
        self._ask(self._driver.cuGraphLaunch, executable, self._stream)
        self._ask(self._driver.cuStreamSynchronize, self._stream)
        self._ask(self._driver.cuGraphExecDestroy, executable)

    def close(self) -> None:
        """Let go of the stream and the buffer that empties the cache."""
        if self._flush is not None:
            self._flush.close()
        self._ask(self._driver.cuStreamDestroy, self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _captured(self, enqueue: Callable[[], object]) -> Any:  # noqa: ANN401 - the driver's
        """Return what a function enqueues as a graph that can be launched."""
        driver = self._driver
        self._ask(driver.cuStreamBeginCapture, self._stream, driver.CUstreamCaptureMode(1))  # THREAD_LOCAL
        try:
            enqueue()
        finally:
            graph = self._ask(driver.cuStreamEndCapture, self._stream)
        executable = self._ask(driver.cuGraphInstantiate, graph, 0)
        self._ask(driver.cuGraphDestroy, graph)
        return executable

    def _time(
        self, runs: Sequence[Callable[[], object]], iterations: int, warm_up: int, *, hot: bool = False
    ) -> NDArray[np.float64]:
        driver = self._driver
        if self._flush is None:
            self._flush = CacheFlush(self._ask, self.capability, self.facts.multiprocessors, self._flush_bytes)
        events = [(self._ask(driver.cuEventCreate, 0), self._ask(driver.cuEventCreate, 0)) for _ in range(iterations)]
        turns = cycle(runs)
        for _ in range(warm_up):
            next(turns)()
        for begin, end in events:
            run = next(turns)
            self._flush.enqueue(self._stream)
            if hot:
                run()
            self._ask(driver.cuEventRecord, begin, self._stream)
            run()
            self._ask(driver.cuEventRecord, end, self._stream)
        self._ask(driver.cuStreamSynchronize, self._stream)
        times = np.array([self._ask(driver.cuEventElapsedTime, *pair) * 1000 for pair in events])
        for pair in events:
            for event in pair:
                self._ask(driver.cuEventDestroy, event)
        return times

    def _ask(self, function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:  # noqa: ANN401 - the driver's
        """Call the driver and return what it returns after its status: a value or None."""
        status, *values = function(*arguments)
        if status:
            raise KernelError(f"{function.__name__} returned {status.name}")
        return values[0] if values else None


class _Loaded:
    """A case on the device: memory for each of its arrays."""

    def __init__(self, gpu: Gpu, case: KernelCase, pooling: PoolingLibrary | None) -> None:
        self._gpu, self._case = gpu, case
        self._addresses: Mapping[str, int] = {name: gpu.allocate(array.nbytes) for name, array in case.memory.items()}
        work = case.start(self._addresses)
        self._workspace = 0
        if isinstance(work, list):
            gpu.kernels.prepare(launch.source for launch in work)
            self.enqueue: Callable[[], None] = lambda: gpu.kernels.launch(work, gpu.stream)
        elif pooling is not None:
            size = pooling.workspace_bytes(work)
            self._workspace = gpu.allocate(size) if size else 0
            self.enqueue = lambda: pooling.launch(work, self._workspace, size, gpu.stream)
        else:
            raise KernelError("corner pooling's library was not built")

    def fill(self) -> None:
        """Copy the memory to the device, with the addresses that stand in it."""
        for name, array in self._case.memory.items():
            content = array.copy()
            for holder, place, target in self._case.pointers:
                if holder == name:
                    content[place : place + 8] = np.frombuffer(np.uint64(self._addresses[target]).tobytes(), np.uint8)
            self._gpu.write(self._addresses[name], content)

    def replay(self) -> None:
        """Run it as a captured graph."""
        self._gpu.replay(self.enqueue)

    def read(self) -> dict[str, NDArray[np.generic]]:
        """Return what lies on the device."""
        return {name: self._gpu.read(self._addresses[name], array) for name, array in self._case.memory.items()}

    def close(self) -> None:
        """Let go of the memory."""
        for address in self._addresses.values():
            self._gpu.free(address)
        if self._workspace:
            self._gpu.free(self._workspace)

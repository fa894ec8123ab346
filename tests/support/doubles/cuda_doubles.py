"""A GPU without a GPU: cuda.core's classes on host memory, as far as our code uses them.

Work runs when it is enqueued. A captured graph remembers it and runs it when launched.
"""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace

from doubles.checked import Checked, CheckedClass, SurfaceError, module


class CudaError(Exception):
    """As cuda.core raises, which has no common base either."""


class Handle:
    """A driver's handle: no number, but convertible to one."""

    def __init__(self, number):
        self._number = number

    def __int__(self):
        return self._number


class Gpu:
    """What a test says about the GPU, and what the code under test did to it.

    Attributes:
        free: Bytes of memory.
        streams: By handle.
        launches: How many graphs were launched.
        captures_fail: What the end of a capture raises, or None.
        kernels: Called for the ``HostKernels`` that run launches, when code is loaded.
    """

    def __init__(self, surface):
        self.surface = surface
        self.name, self.capability = "NVIDIA H200", (9, 0)
        self.free, self.total = 1 << 30, 1 << 31
        self.broken = None
        self.captures_fail = None
        self.kernels = None
        self._loaded = None
        self.launches = self.allocated = 0
        self.streams = {}
        self.memory = {}

    def modules(self):
        """Return what stands for the modules, by name."""
        buffer = CheckedClass(self.surface, "Buffer", _BufferMaker(self))
        core = module(
            "cuda.core",
            {
                "Device": CheckedClass(self.surface, "Device", lambda number=0: _Device(self, number)),
                "Buffer": buffer,
                "ObjectCode": CheckedClass(self.surface, "ObjectCode", _CodeMaker(self)),
                "LegacyPinnedMemoryResource": CheckedClass(
                    self.surface, "LegacyPinnedMemoryResource", lambda: _Pinned(self)
                ),
            },
        )
        driver = module(
            "cuda.bindings.driver",
            {
                "cuMemGetInfo": self._memory_info,
                "cuCtxGetCurrent": self._current,
                "cuKernelGetFunction": self._function,
                "cuFuncLoad": self._load_function,
                "cuLaunchKernel": self._launch,
                "cuStreamEndCapture": self._end_capture,
                "CUkernel": Handle,
                "CUstream": Handle,
            },
        )
        bindings = module("cuda.bindings", {"driver": driver})
        cuda = module("cuda", {"core": core, "bindings": bindings})
        return {"cuda": cuda, "cuda.core": core, "cuda.bindings": bindings, "cuda.bindings.driver": driver}

    def enqueue(self, handle, work):
        """Run work, or remember it where the stream is captured."""
        stream = self.streams[handle]
        if stream._recorded is None:
            work()
        else:
            stream._recorded.append(work)

    def make(self, size):
        if size > self.free:
            raise CudaError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate memory")
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.memory[address] = block
        self.allocated += size
        return Checked(self.surface, "Buffer", _Buffer(self, address, size))

    def load(self):
        self._loaded = self._loaded or self.kernels()

    def _launch(self, *arguments):
        self.surface.check_function("cuLaunchKernel", *arguments)
        function, *sizes, stream, slots, _extra = arguments
        launch = self._loaded.launch(int(function), sizes, slots)
        self.enqueue(int(stream), lambda: self._loaded.run(launch))
        return (_Success(),)

    def _current(self):
        self.surface.check_function("cuCtxGetCurrent")
        return _Success(), Handle(1)

    def _function(self, kernel):
        self.surface.check_function("cuKernelGetFunction", kernel)
        return _Success(), kernel

    def _load_function(self, *arguments):
        self.surface.check_function("cuFuncLoad", *arguments)
        return (_Success(),)

    def _end_capture(self, stream):
        self.surface.check_function("cuStreamEndCapture", stream)
        self.streams[int(stream)]._recorded = None
        return _Success(), None

    def _memory_info(self):
        self.surface.check_function("cuMemGetInfo")
        return _Success(), self.free, self.total


class _Success(int):
    name = "CUDA_SUCCESS"

    def __new__(cls):
        return super().__new__(cls, 0)


class _CodeMaker:
    def __init__(self, gpu):
        self._gpu = gpu

    def from_cubin(self, module, *, name=""):
        del module, name
        self._gpu.load()
        return _Code(self._gpu)


class _Code:
    def __init__(self, gpu):
        self._gpu = gpu

    def get_kernel(self, name):
        text = ctypes.create_string_buffer(name.encode())
        self._gpu._loaded.names.append(text)
        return Checked(self._gpu.surface, "Kernel", _Kernel(ctypes.addressof(text)))


class _Kernel:
    def __init__(self, address):
        self.handle = Handle(address)  # of its name, as in fake_driver.c


class HostKernels:
    """The kernels on the CPU, from the library that tests/support/host/fake_gpu.cpp is part of."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))
        self._library.parameterBytesOf.restype = ctypes.c_size_t
        self.names = []
        self._turn = threading.Lock()  # the shim has one scheduler

    def launch(self, kernel, sizes, slots):
        """Return a launch with a copy of its parameters, as the driver keeps it."""
        *extents, shared_bytes = sizes
        name = ctypes.cast(kernel, ctypes.c_char_p)
        size = self._library.parameterBytesOf(name)
        source = ctypes.cast(slots, ctypes.POINTER(ctypes.c_void_p))[0]
        found = _Launch(name, (ctypes.c_uint * 6)(*extents), shared_bytes)
        ctypes.memmove(found.parameters, source, size)
        return found

    def run(self, launch):
        with self._turn:
            status = self._library.runLaunch(ctypes.byref(launch))
        assert status == 0, f"{launch.kernel} returned {status}"


class _Launch(ctypes.Structure):  # as in fake_driver.c
    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("extents", ctypes.c_uint * 6),
        ("shared_bytes", ctypes.c_uint),
        ("parameters", ctypes.c_ubyte * 4096),
    )


class _Device:
    def __init__(self, gpu, number):
        self._gpu = gpu
        if number:
            raise ValueError(f"device_id must be within [0, 1), got {number}")
        self.name = gpu.name
        self.compute_capability = SimpleNamespace(major=gpu.capability[0], minor=gpu.capability[1])

    def set_current(self):
        if self._gpu.broken:
            raise CudaError(self._gpu.broken)

    def create_stream(self):
        stream = _Stream(self._gpu)
        self._gpu.streams[int(stream.handle)] = stream
        return Checked(self._gpu.surface, "Stream", stream)

    def create_event(self, options=None):
        assert options in ({"timing_enabled": False}, {"timing_enabled": True})
        return Checked(self._gpu.surface, "Event", _Event())

    def allocate(self, size, *, stream):
        assert stream._kind == "Stream"
        return self._gpu.make(size)


class _Pinned:
    def __init__(self, gpu):
        self._gpu = gpu

    def allocate(self, size):
        return self._gpu.make(size)


class _Stream:
    def __init__(self, gpu):
        self._gpu = gpu
        self.handle = Handle(0x1000 + 16 * len(gpu.streams))
        self._recorded = None
        self._invalid = False

    def sync(self):
        self._invalid = self._recorded is not None  # waiting ends a capture

    def record(self, event):
        assert event._kind == "Event"
        assert self._recorded is None, "an event is recorded while its stream is captured"

    def wait(self, event_or_stream):
        self.record(event_or_stream)  # work runs at once

    def close(self):
        pass

    def create_graph_builder(self):
        return Checked(self._gpu.surface, "GraphBuilder", _GraphBuilder(self._gpu, self))


class _Event:
    def sync(self):
        pass

    def close(self):
        pass


class _GraphBuilder:
    def __init__(self, gpu, stream):
        self._gpu, self._stream = gpu, stream
        self.is_building = False

    def begin_building(self, mode="relaxed"):
        assert mode in ("global", "thread_local", "relaxed")
        self._stream._recorded, self._stream._invalid = [], False
        self.is_building = True
        return Checked(self._gpu.surface, "GraphBuilder", self)

    def end_building(self):
        self._work, self._stream._recorded, self.is_building = self._stream._recorded, None, False
        if self._stream._invalid or self._gpu.captures_fail:
            raise CudaError(self._gpu.captures_fail or "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        return Checked(self._gpu.surface, "GraphBuilder", self)

    def complete(self):
        return Checked(self._gpu.surface, "Graph", _Graph(self._gpu, self._work))

    def close(self):
        pass


class _Graph:
    def __init__(self, gpu, work):
        self._gpu, self._work = gpu, work

    def launch(self, stream):
        assert stream._kind == "Stream"
        self._gpu.launches += 1
        for work in self._work:
            work()

    def close(self):
        self._work = None


class _Buffer:
    def __init__(self, gpu, address, size):
        self._gpu = gpu
        self.handle, self.size = address, size

    def copy_from(self, src, *, stream):
        source, target, size = src.handle, self.handle, self.size
        if src.size != size:
            raise ValueError(f"buffer sizes mismatch between src and dst (sizes are: src={src.size}, dst={size})")
        self._gpu.enqueue(int(stream.handle), lambda: ctypes.memmove(target, source, size))

    def close(self, stream=None):
        del stream
        if self._gpu.memory.pop(self.handle, None) is None:
            raise SurfaceError("a buffer that owns no memory, or was closed before, is closed")


class _BufferMaker:
    def __init__(self, gpu):
        self._gpu = gpu

    def from_handle(self, ptr, size):
        return _Buffer(self._gpu, ptr, size)

"""A network on the GPU of fake_driver.c, whose memory is the host's: any backend, called by the stream.

For processes in which that libcuda.so.1 stands in the driver's place.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

from cornernet_runtime.errors import BackendError, SizeError
from cornernet_runtime.kernels.decode import DeviceMaps
from cornernet_runtime.processing.maps import OUTPUT_NAMES, output_channels

HostCall = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Counts(ctypes.Structure):
    """What the driver was asked for, all in all."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("allocated", "released", "graphs", "works", "captures"))


def counts():
    """Return a copy of the driver's counts."""
    found = Counts.in_dll(ctypes.CDLL("libcuda.so.1"), "fakeCounts")
    return Counts.from_buffer_copy(found)


class HostNetwork:
    """A ``DeviceNetwork`` whose runs a backend of the host computes, when the stream comes to them.

    Attributes:
        seen: Shapes that the backend was given, in order.
        refuses: Whether the next runs cannot be enqueued.
    """

    def __init__(self, device, backend, spec, *, max_batch=2, smallest=1, half=False, maps_half=False):
        self.max_batch, self._smallest = max_batch, smallest
        self._device, self._backend, self._spec = device, backend, spec
        self._half, self._maps_half = half, maps_half
        self._driver = ctypes.CDLL("libcuda.so.1")
        self.seen, self.refuses = [], False
        height, width = spec.largest_size
        cells = ((height + 1) // spec.stride) * ((width + 1) // spec.stride)
        self._input = device.allocate(max_batch * 3 * height * width * 4, "input")
        self._outputs = {
            name: device.allocate(max_batch * channels * cells * 4, name)
            for name, channels in output_channels(spec).items()
        }

    def smallest_batch(self, shape):
        if shape[0] > self.max_batch:
            raise SizeError("too many")
        return max(shape[0], self._smallest)

    def bind(self, shape):
        return _Bound(self, shape)

    def close(self):
        for buffer in (self._input, *self._outputs.values()):
            buffer.close(self._device.stream)


class _Bound:
    def __init__(self, network, shape):
        assert network._smallest <= shape[0] <= network.max_batch
        self._network, self._shape = network, shape
        self.half = network._half
        self.input = int(network._input.handle)
        spec, maps_type = network._spec, "float16" if network._maps_half else "float32"
        cells = tuple((side + 1) // spec.stride for side in shape[2:])
        addresses = {name: int(buffer.handle) for name, buffer in network._outputs.items()}
        shape_of_maps = (shape[0], len(spec.class_names), *cells)
        self.maps = DeviceMaps(**addresses, shape=shape_of_maps, heat_type=maps_type, place_type=maps_type)
        self._call = HostCall(self._compute)

    def enqueue(self, stream):
        if self._network.refuses:
            raise BackendError("the network refuses")
        assert self._network._driver.cuLaunchHostFunc(ctypes.c_void_p(stream), self._call, None) == 0

    def _compute(self, _data):
        network = self._network
        network.seen.append(self._shape)
        images = _array(self.input, self._shape, np.float16 if self.half else np.float32)
        maps = network._backend(np.nan_to_num(images.astype(np.float32)))  # a batch that is filled up holds anything
        for name in OUTPUT_NAMES:
            found = getattr(maps, name)
            _array(getattr(self.maps, name), found.shape, self.maps.heat_type)[:] = found


def _array(address, shape, element):
    element = np.dtype(element)
    size = math.prod(shape) * element.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), element).reshape(shape)

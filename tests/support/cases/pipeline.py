"""Cases of test_pipeline.py: what is detected, on which frames, and what is refused."""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.small import SMALL_SPEC, small_model
from cuda.core.utils import StridedMemoryView
from doubles.device_double import HostNetwork, counts
from noise.margins import assert_found, clear_detections
from places import SHIPPED

from cornernet_export.torch_backend.cpu import TorchBackend, open_checkpoint
from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice, host_bytes
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.errors import BackendError, CornerNetWarning, FrameError, SizeError
from cornernet_runtime.pipeline import GpuPipeline
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps
from cornernet_train.shapes import make_scene

UNSEEN_SEED = 4242
# Few of everything: kernels take their time on the CPU. They have tests of their own for the rest.
SPEC = replace(SMALL_SPEC, decode=DecodeParameters(top_k=24, candidates=40), nms=NmsParameters(max_detections=20))


def noise(height, width, seed=0):
    """Return a frame of blocks, which leaves something to find after resizing."""
    rng = np.random.default_rng([seed, height, width])
    cells = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.ascontiguousarray(cells.repeat(8, 0).repeat(8, 1)[:height, :width])


class Pair:
    """A pipeline and the CPU's detector, of the same network."""

    def __init__(self, detector, depth=2, **network):
        self.detector, self.device = detector, CudaDevice()
        self.network = HostNetwork(self.device, detector.backend, detector.spec, **network)
        self._before = counts()
        options = {"flip": detector.flip, "scales": detector.scales, "depth": depth}
        self.pipeline = GpuPipeline(self.device, self.network, detector.spec, **options)

    def counts(self):
        """Return what the driver was asked for since this pair was made."""
        after = counts()
        names = [name for name, _ in type(after)._fields_]
        return type(after)(*(getattr(after, name) - getattr(self._before, name) for name in names))

    def compare(self, frames, least=1):
        """Detect on both, and assert that all detections of at least 0.1 are the same, but for near ties."""
        found = self.pipeline(frames)
        assert len(found) == len(frames)
        for one, frame in zip(found, frames, strict=True):
            # Scores are products of a few exponentials, on maps that batches of other sizes change by 1e-6.
            assert_found(clear_detections(self.detector, frame), one, least, iou=0.95, score=5e-5)
            assert one.class_names == self.detector.class_names
            assert one.boxes.dtype == np.float32
            assert one.labels.dtype == np.int64
            assert (np.diff(one.scores) <= 0).all()
            assert len(one) <= self.detector.spec.nms.max_detections


def small(spec=SPEC, **options):
    """Return the CPU's detector of the small network, which takes any size."""
    return Detector(TorchBackend(small_model()), spec, **options)


def unseen_scenes_of_the_shipped_model():
    pair = Pair(open_checkpoint(SHIPPED, flip=True), max_batch=4)
    scenes = [make_scene(UNSEEN_SEED, number).image for number in range(3)]
    assert len({scene.shape for scene in scenes}) > 1
    pair.compare(scenes, least=3)  # two frames together, and one alone
    assert pair.network.seen == [(4, 3, 255, 255), (2, 3, 255, 255)]
    pair.compare([scene[:, ::-1] for scene in scenes[2:]], least=3)  # replayed; and strides that are negative
    assert pair.counts().graphs == 1


def replays_see_other_frames_of_other_sizes():
    pair = Pair(small())
    for number, (height, width) in enumerate([(126, 190), (63, 95), (200, 50), (1, 1), (64, 333), (126, 190)]):
        pair.compare([noise(height, width, number)], least=0)
    pair.compare([noise(126, 190, 9)])
    assert (pair.counts().captures, pair.counts().graphs) == (1, 6)


def views_of_several_sizes_share_a_run():
    spec = replace(SPEC, other_sizes=((31, 47), (63, 63)))
    pair = Pair(small(spec, flip=True, scales=(1.0, 0.4)), max_batch=4)
    frames = [noise(126, 190), noise(100, 100), noise(126, 190, 2)]
    pair.compare(frames)
    pair.compare(frames[::-1])
    assert {shape[2:] for shape in pair.network.seen} == {(63, 95), (31, 47), (63, 63)}


def two_frames_of_several_sizes_share_a_run():
    spec = replace(SPEC, other_sizes=((31, 47),))
    pair = Pair(small(spec, scales=(1.0, 0.4)), max_batch=4)
    frames = [noise(126, 190), noise(63, 95, 1), noise(120, 180, 2)]
    pair.compare(frames)
    assert pair.network.seen == [(2, 3, 63, 95), (2, 3, 31, 47), (1, 3, 63, 95), (1, 3, 31, 47)]


def more_views_than_the_network_takes_at_once():
    pair = Pair(small(flip=True, scales=(1.0, 0.75, 0.5)), max_batch=4)
    pair.compare([noise(126, 190), noise(90, 150)])
    assert pair.network.seen == [(4, 3, 63, 95), (2, 3, 63, 95)] * 2


def a_batch_below_the_smallest_is_filled_up():
    pair = Pair(small(), max_batch=4, smallest=2)
    pair.compare([noise(126, 190)])
    assert pair.network.seen == [(2, 3, 63, 95)]


def native_geometry_has_a_graph_for_each_size():
    spec = replace(SPEC, dynamic=True, geometry="native", largest_size=(127, 127))
    pair = Pair(small(spec, flip=True), max_batch=2)
    for frame in (noise(60, 90), noise(95, 63), noise(300, 200), noise(60, 90, 1)):
        pair.compare([frame])
    assert len({shape[2:] for shape in pair.network.seen}) == 3


def half_precision_in_and_out():
    class Rounded(TorchBackend):
        def __call__(self, images):
            maps = super().__call__(images.astype(np.float16).astype(np.float32))
            half = (getattr(maps, name).astype(np.float16).astype(np.float32) for name in OUTPUT_NAMES)
            return CornerMaps(*half)

    pair = Pair(Detector(Rounded(small_model()), SPEC), half=True, maps_half=True)
    for seed in range(3):
        pair.compare([noise(126, 190, seed)])


def nothing_is_allocated_once_warm():
    pair = Pair(small(flip=True), max_batch=4)
    frames = [noise(126, 190, seed) for seed in range(4)]
    pair.compare(frames[:2])
    before = counts()
    for _ in range(5):
        pair.pipeline(frames[2:])
    pair.pipeline([frames[0][:100], frames[1][:, :100]])  # smaller ones
    after = counts()
    assert (after.allocated, after.released, after.captures) == (before.allocated, before.released, before.captures)
    assert after.graphs - before.graphs == 6
    assert after.works - before.works == 6 * 4  # uploads of two frames and of where they lie, a download


def larger_frames_grow_their_memory_and_keep_the_graph():
    pair = Pair(small())
    pair.compare([noise(63, 95)])
    before = counts()
    pair.compare([noise(630, 950)])
    after = counts()
    assert after.allocated - before.allocated == after.released - before.released == 2  # device and host
    assert after.captures == before.captures
    assert after.graphs - before.graphs == 1


def larger_work_replaces_the_graphs_that_know_the_old_memory():
    pair = Pair(small(), max_batch=4)
    for frames in (1, 4, 1, 4):
        pair.compare([noise(126, 190, seed) for seed in range(frames)])
    assert pair.counts().captures == 3  # one frame, four, and one again
    assert pair.counts().graphs == 1


def everything_is_given_back():
    gc.collect()  # of the cases before
    device = CudaDevice()
    before = counts()
    detector = small()
    network = HostNetwork(device, detector.backend, SPEC)
    pipeline = GpuPipeline(device, network, SPEC)
    pipeline([noise(126, 190)])
    pipeline.close()
    network.close()
    after = counts()
    assert after.allocated - before.allocated == after.released - before.released > 10


def without_capture_it_runs_all_the_same_and_says_so_once():
    pair = Pair(small())
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        patch.setenv("FAKE_REFUSES_CAPTURE", "1")
        warnings.simplefilter("always")
        for seed in range(3):
            pair.compare([noise(126, 190, seed)])
        pair.compare([noise(126, 190), noise(63, 95)])
    (told,) = [one for one in caught if one.category is CornerNetWarning]
    assert "the GPU pipeline cannot be captured as a CUDA graph" in str(told.message)
    assert pair.counts().graphs == 0


def bad_frames_are_refused_before_anything_runs():
    pair = Pair(small())
    good = noise(126, 190)
    for bad in (good.astype(np.float32), good[..., :2], good[..., 0], good[:0], good.tolist(), None):
        works = counts().works
        with pytest.raises(FrameError, match=r"a frame is .*uint8 \[H, W, 3\]"):
            pair.pipeline([good, bad])
        assert counts().works == works
    assert pair.pipeline([]) == []
    pair.compare([good])


def a_network_that_refuses_is_told_and_tried_again():
    pair = Pair(small())
    pair.network.refuses = True
    with pytest.raises(BackendError, match="the network refuses"):
        pair.pipeline([noise(126, 190)])
    pair.network.refuses = False
    pair.compare([noise(126, 190)])


def too_little_memory_is_told_and_smaller_frames_still_run():
    pair = Pair(small())
    pair.compare([noise(126, 190)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_MEMORY_MIB", "1")
        with pytest.raises(BackendError, match="frames: 3 MiB were asked for and 1 MiB of no GPU are free"):
            pair.pipeline([noise(1000, 1000)])
    pair.compare([noise(126, 190)])


def what_the_kernels_cannot_keep_is_told_when_it_is_made():
    device, detector = CudaDevice(), small()
    network = HostNetwork(device, detector.backend, SPEC)
    allocated = counts().allocated
    for part, name in (("decode", "top_k"), ("decode", "candidates"), ("nms", "max_detections")):
        spec = replace(SPEC, **{part: replace(getattr(SPEC, part), **{name: 1025})})
        with pytest.raises(BackendError, match=f"{name}.*1024|1024.*{name}"):
            GpuPipeline(device, network, spec)
    with pytest.raises(BackendError, match="expected at most 10240 of a frame, got 12000; use fewer scales"):
        GpuPipeline(device, network, SMALL_SPEC, flip=True, scales=(1, 0.9, 0.8, 0.7, 0.6, 0.5))
    with pytest.raises(SizeError, match="scales: expected distinct positive numbers"):
        GpuPipeline(device, network, SPEC, scales=())
    assert counts().allocated == allocated


class OnDevice:
    """A frame in the device's memory, as another library has it."""

    def __init__(self, device, frame, pitch=None, **changes):
        height, width, _ = frame.shape
        pitch = pitch or 3 * width
        self._buffer = device.allocate(height * pitch, "a frame")
        address = int(self._buffer.handle)
        rows = host_bytes(self._buffer, height * pitch).reshape(height, pitch)
        rows[:, : 3 * width] = frame.reshape(height, -1)
        strides = None if pitch == 3 * width else (pitch, 3, 1)
        self.facts = {
            "shape": frame.shape,
            "typestr": "|u1",
            "data": (address, False),
            "strides": strides,
            "version": 3,
        }
        self.facts |= {"stream": 2, **changes}

    @property
    def __cuda_array_interface__(self):
        return self.facts


def frames_on_the_device_are_read_where_they_lie():
    pair = Pair(small(flip=True), max_batch=4)
    frames = [noise(126, 190, 1), noise(120, 180, 2)]
    expected = pair.pipeline(frames)
    held = [OnDevice(pair.device, frames[0]), OnDevice(pair.device, frames[1], pitch=640)]
    before = counts()
    found = pair.pipeline(held)
    found += pair.pipeline(
        [StridedMemoryView.from_buffer(held[0]._buffer, (126, 190, 3), dtype=np.dtype("u1")), held[1]]
    )
    mixed = pair.pipeline([held[0], frames[1]])
    after = counts()
    assert (after.allocated, after.captures) == (before.allocated, before.captures)
    assert after.works - before.works == 3 * 2 + 1  # small copies, and the upload of the one on the host
    for want, other in zip(expected * 3, [*found, *mixed], strict=True):
        assert np.array_equal(want.boxes, other.boxes)
        assert np.array_equal(want.scores, other.scores)


def arrays_of_torch_on_the_host_are_refused():
    pair = Pair(small())
    with pytest.raises(FrameError, match=r"torch\.Tensor: expected one on GPU 0, got one on the host; move it there"):
        pair.pipeline([torch.from_numpy(noise(126, 190))])


class Once:
    """A frame by DLPack, whose capsule can be consumed once; the first consumer has it."""

    def __init__(self, device, frame):
        self._held = OnDevice(device, frame)
        view = StridedMemoryView.from_buffer(self._held._buffer, frame.shape, dtype=np.dtype("u1"))
        self._capsule, self._device = view.__dlpack__(), view.__dlpack_device__()

    def __dlpack_device__(self):
        return self._device

    def __dlpack__(self, **_options):
        return self._capsule


def a_consumed_capsule_is_refused_and_the_next_frame_runs():
    pair = Pair(small())
    frame = noise(126, 190)
    once = Once(pair.device, frame)
    (found,) = pair.pipeline([once])
    assert np.array_equal(found.boxes, pair.pipeline([frame])[0].boxes)
    with pytest.raises(FrameError, match=r"a frame of cases\.pipeline\.Once cannot be read: .*; pass it on the GPU"):
        pair.pipeline([once])
    pair.compare([frame])


def bad_frames_on_the_device_are_refused():
    pair = Pair(small())
    frame = noise(126, 190)
    for changes, said in (
        ({"typestr": "<f4"}, r"uint8 \[H, W, 3\] in BGR order, got float32"),
        ({"shape": (126, 570)}, r"got uint8 \[126, 570\]"),
        ({"shape": (3, 126, 190)}, r"got uint8 \[3, 126, 190\]"),
        ({"shape": (0, 190, 3)}, r"got uint8 \[0, 190, 3\]"),
        ({"strides": (190, 1, 126 * 190)}, "expected pixels of 3 bytes side by side"),
        ({"strides": (0, 3, 1)}, "pitch of a frame"),
        ({"version": 1}, "cannot be read"),
    ):
        works = counts().works
        with pytest.raises(FrameError, match=said):
            pair.pipeline([OnDevice(pair.device, frame, **changes)])
        assert counts().works == works


class OfTorch:
    """A frame of any type of PyTorch's, by DLPack."""

    def __init__(self, element):
        self._held = torch.zeros((126, 190, 3), dtype=element)

    def __dlpack_device__(self):
        return 2, 0  # kDLCUDA

    def __dlpack__(self, **_options):
        return self._held.__dlpack__()


def frames_of_types_that_numpy_has_not_are_refused():
    pair = Pair(small())
    for element in (torch.bfloat16, torch.float8_e4m3fn, torch.float16):
        with pytest.raises(FrameError, match=r"a frame is uint8 \[H, W, 3\] in BGR order, got "):
            pair.pipeline([OfTorch(element)])

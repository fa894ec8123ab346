"""Frames to network input on the GPU: on the CPU, the kernel gives what the CPU's preprocessing gives."""

from dataclasses import replace

import numpy as np
import pytest
from cases.small import SMALL_SPEC
from host import host_cuda, kernel_host
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.spec import Normalisation
from cornernet_runtime.errors import FrameError
from cornernet_runtime.kernels.preprocess import DeviceFrame, View, describe, level_table, preprocess
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.preprocess import Preprocessor

on_the_host = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))

INPUT = SMALL_SPEC.input_size
NATIVE = replace(SMALL_SPEC, dynamic=True, geometry="native", largest_size=(255, 255))
BGR = Normalisation(pad=(10.0, 20.0, 255.0))
RGB = Normalisation("rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), pad=(123.7, 116.3, 103.5))


@pytest.fixture(scope="module")
def sanitized():
    return kernel_host.build_kernels(["preprocess"], host_cuda.ADDRESS)


@pytest.fixture(scope="module")
def threaded():
    return kernel_host.build_kernels(["preprocess"], host_cuda.THREAD, "threads")


@pytest.fixture(scope="module")
def counting():
    return kernel_host.build_kernels(["preprocess"], ["-O2"], "count")


def noise(size, seed=0):
    return np.random.default_rng([seed, *size]).integers(0, 256, (*size, 3), np.uint8)


class Stored:
    """A frame in memory of its own, as a device would have it: rows ``pitch`` bytes apart, nothing after the last."""

    def __init__(self, frame, *, gap=0, offset=0, upside_down=False, order="bgr"):
        height, width = frame.shape[:2]
        pitch = 3 * width + gap
        self.memory = np.full(offset + (height - 1) * pitch + 3 * width, 0xEE, np.uint8)
        rows = np.lib.stride_tricks.as_strided(self.memory[offset:], frame.shape, (pitch, 3, 1))
        rows[...] = frame[::-1] if upside_down else frame
        if order == "rgb":
            rows[...] = rows[..., ::-1].copy()
        start = self.memory.ctypes.data + offset
        if upside_down:
            start, pitch = start + (height - 1) * pitch, -pitch
        self.device = DeviceFrame(start, (height, width), pitch, order)


def run(program, stored, placements, normalisation, *, half=False):
    """Run the kernel for one view of each stored frame; return the input [N, 3, H, W] and what was moved."""
    views = [describe(one.device, view, normalisation) for one, view in zip(stored, placements, strict=True)]
    described = np.frombuffer(b"".join(bytes(view) for view in views), np.uint8).copy()
    table = level_table(normalisation)
    shape = (len(views), 3, *placements[0].input_size)
    output = np.full(shape, np.nan, np.float16 if half else np.float32)
    launches = preprocess(described.ctypes.data, table.ctypes.data, output.ctypes.data, shape, half=half)
    arrays = [described, table, output, *(one.memory for one in stored)]
    pointers = [(described, index * len(bytes(View()))) for index in range(len(views))]
    return output, kernel_host.run(program, launches, arrays, pointers=pointers)


def expected(frames, placements, normalisation):
    output = np.full((len(frames), 3, *placements[0].input_size), np.nan, np.float32)
    prepare = Preprocessor(normalisation)
    for frame, view, image in zip(frames, placements, output, strict=True):
        prepare(frame, view, image)
    return output


def check(program, frames, placements, normalisation, *, half=False, **memory):
    """Compare with the CPU: the kernel's arithmetic is OpenCV's own, so nothing differs.

    An OpenCV of another make, such as one with a vendor's resize, may round otherwise: up to a grey level.
    """
    found, moved = run(program, [Stored(frame, **memory) for frame in frames], placements, normalisation, half=half)
    wanted = expected(frames, placements, normalisation).astype(found.dtype)
    np.testing.assert_array_equal(found, wanted)
    return moved


sides = st.integers(1, 150)


@pytest.mark.slow
@on_the_host
@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    size=st.tuples(sides, sides),
    native=st.booleans(),
    scale=st.sampled_from([0.4, 0.75, 1.0, 1.5]),
    mirrored=st.booleans(),
    normalisation=st.sampled_from([BGR, RGB]),
    half=st.booleans(),
    memory=st.fixed_dictionaries(
        {"order": st.sampled_from(["bgr", "rgb"]), "gap": st.sampled_from([0, 1, 37]), "upside_down": st.booleans()}
    ),
    seed=st.integers(0, 2**31),
)
@example((1, 1), False, 1.0, False, BGR, False, {}, 0)
@example((1, 1), True, 0.4, True, RGB, True, {"gap": 5, "upside_down": True}, 0)
@example((1, 150), False, 1.0, False, BGR, False, {"order": "rgb"}, 0)
@example((150, 1), True, 1.5, False, BGR, False, {"order": "rgb", "upside_down": True}, 0)
@example(INPUT, False, 1.0, True, RGB, True, {"gap": 1, "order": "rgb"}, 0)
@example((47, 31), True, 1.0, False, BGR, False, {}, 0)
@example((126, 190), False, 1.0, False, BGR, False, {}, 0)
def test_input_is_that_of_the_cpu(counting, size, native, scale, mirrored, normalisation, half, memory, seed):
    view = place(size, NATIVE if native else SMALL_SPEC, [scale if native else scale / 1.5], flip=True)[mirrored]
    check(counting, [noise(size, seed)], [view], normalisation, half=half, **memory)


@on_the_host
@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (20, 48), (51, 37), (3, 4000)], ids=str)
def test_input_is_that_of_the_cpu_far_down_and_far_up(counting, size, half):
    check(counting, [noise(size)], [fit(size, (383, 511))], BGR, half=half, offset=3)


BATCH = [(80, 70), (10, 300), (63, 95), (1, 1)]


def views_of(sizes):
    return [
        fit(size, INPUT) if number % 2 else replace(fit(size, INPUT), mirrored=True)
        for number, size in enumerate(sizes)
    ]


@on_the_host
@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_views_of_a_batch_are_of_frames_of_their_own(sanitized, half):
    frames = [noise(size, seed) for seed, size in enumerate(BATCH)]
    check(sanitized, frames, views_of(BATCH), BGR, half=half, gap=7, offset=1)


@on_the_host
def test_one_frame_gives_all_its_views(sanitized):
    frame = noise((40, 31))
    views = place((40, 31), SMALL_SPEC, (1.0, 0.5), flip=True)
    stored = [Stored(frame)] * len(views)
    found, _ = run(sanitized, stored, views, RGB)
    np.testing.assert_array_equal(found, expected([frame] * len(views), views, RGB))


@on_the_host
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 7), (7, 1), (63, 95), pytest.param((200, 300), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("native", [False, True], ids=["fit", "native"])
def test_sanitizers_find_nothing(sanitized, size, native, upside_down):
    # The memory of a frame ends with its last pixel, and that of the input with its last: a byte beyond is seen.
    for view in place(size, NATIVE if native else SMALL_SPEC, flip=True):
        check(sanitized, [noise(size)], [view], BGR, half=True, upside_down=upside_down, gap=2)


@pytest.mark.slow
@on_the_host
def test_thread_sanitizer_finds_no_race(threaded):
    small = (15, 31)
    check(threaded, [noise((9, 40)), noise((30, 5))], [fit((9, 40), small), fit((30, 5), small)], BGR, half=True)


@on_the_host
@pytest.mark.parametrize("half", [False, True], ids=["float", "half"])
def test_input_is_written_once_and_a_frame_of_its_size_read_once_per_neighbour(counting, half):
    frames, views = [noise(INPUT, seed) for seed in range(2)], [fit(INPUT, INPUT)] * 2
    moved = check(counting, frames, views, BGR, half=half)
    output = 2 * 3 * INPUT[0] * INPUT[1]
    assert (moved[2].read, moved[2].written) == (0, output * (2 if half else 4))
    assert [(one.read, one.written) for one in moved[3:]] == [(4 * frame.size, 0) for frame in frames]


@on_the_host
def test_border_reads_no_frame(counting):
    frame = noise((1, 1))
    view = fit((1, 1), (1023, 15))
    moved = check(counting, [frame], [view], BGR)
    assert moved[3].read == 4 * 3 * view.size[0] * view.size[1]


def test_a_far_row_of_a_huge_frame_is_addressed_in_64_bits():
    # No such frame is in memory: what is passed on is looked at, the kernel's source declares the same widths.
    view = describe(DeviceFrame(2**40, (2**20, 5), 2**40), fit((2**20, 5), INPUT), BGR)
    assert (view.frame, view.pitch) == (2**40, 2**40)


def test_levels_become_what_the_formula_says():
    table = level_table(RGB)
    assert table.shape == (3, 257)
    assert table.dtype == np.float32
    assert table[0, 51] == np.float32((0.2 - 0.485) / 0.229)
    assert table[2, 256] == np.float32((103.5 / 255 - 0.406) / 0.225)


def test_one_launch_covers_the_batch():
    (launch,) = preprocess(8, 16, 32, (5, 3, 511, 767), half=True)
    assert (launch.kernel, launch.grid, launch.block, launch.shared_bytes) == ("preprocessHalf", (6, 511, 5), 128, 0)
    (launch,) = preprocess(8, 16, 32, (1, 3, 511, 512), half=False)
    assert (launch.kernel, launch.grid) == ("preprocessFloat", (4, 511, 1))


@pytest.mark.parametrize(
    "shape", [(0, 3, 5, 5), (1, 1, 5, 5), (1, 3, 0, 5), (1, 3, 5, -1), (65536, 3, 5, 5), (1, 3, 65536, 5)]
)
def test_impossible_input_is_refused(shape):
    with pytest.raises(FrameError, match=r"expected \[N, 3, H, W\]"):
        preprocess(8, 16, 32, shape, half=False)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"address": 0}, "address"),
        ({"address": -8}, "address"),
        ({"address": 2**64}, "address"),
        ({"size": (0, 5)}, "size"),
        ({"size": (4, 2**31)}, "size"),
        ({"pitch": 14}, "pitch"),
        ({"pitch": -14}, "pitch"),
        ({"pitch": 2**62}, "pitch"),
        ({"channel_order": "grey"}, "channel_order"),
    ],
)
def test_impossible_frame_is_refused(wrong, what):
    sound = {"address": 4096, "size": (4, 5), "pitch": 15}
    DeviceFrame(**sound)
    with pytest.raises(FrameError, match=what):
        DeviceFrame(**{**sound, **wrong})


def test_placement_of_another_frame_is_refused():
    with pytest.raises(FrameError, match="of a frame of 5x4, got one of 4x5"):
        describe(DeviceFrame(4096, (4, 5), 15), fit((5, 4), INPUT), BGR)

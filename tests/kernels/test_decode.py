"""The kernels of decode, on the CPU: they compute the reference, in any order of blocks, and read each heat once."""

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from host import decode_host, host_cuda, kernel_host
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.spec import DecodeParameters, ModelSpec
from cornernet_runtime.errors import BackendError, SizeError
from cornernet_runtime.kernels import decode as kernels
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.processing.decode import decode as reference
from cornernet_runtime.processing.decode import find_peaks
from cornernet_runtime.processing.geometry import Placement, cells_to_input, clip_to_frame, place
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

on_the_host = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))


@pytest.fixture(scope="module")
def counting():
    # This one takes the reductions by shuffles, as on compute capability 7.5.
    flags = ["-O2", "-DCORNERNET_SHUFFLE"]
    return kernel_host.build_kernels(["decode"], flags, "count")


@pytest.fixture(scope="module")
def sanitized():
    return kernel_host.build_kernels(["decode"], host_cuda.ADDRESS)


@pytest.fixture(scope="module")
def threaded():
    return kernel_host.build_kernels(["decode"], host_cuda.THREAD, "threads")


def random_maps(shape, seed=0, coarse=False, special=(), dtype=np.float32):
    """Maps of a batch; coarse ones tie everywhere, and one cell in twenty is one of the special values."""
    random = np.random.default_rng([seed, *shape])
    images, _classes, height, width = shape
    arrays = []
    for name in OUTPUT_NAMES:
        kind = name.split("_")[1]
        size = {"heat": shape, "embed": (images, 1, height, width), "offset": (images, 2, height, width)}[kind]
        values = {"heat": (-3, 2), "embed": (0, 0.5), "offset": (0.5, 0.3)}[kind]
        array = random.normal(*values, size)
        if coarse:
            array = np.round(array) if kind == "heat" else np.round(array * 4) / 4
        if special:
            chosen = random.random(size) < 0.05
            array[chosen] = random.choice(special, int(chosen.sum()))
        arrays.append(array.astype(dtype))
    return CornerMaps(*arrays)


def whole_input(shape, stride=4, **changes):
    """The placement of a frame that is the input itself."""
    size = (shape[2] * stride - 1, shape[3] * stride - 1)
    return replace(Placement(size, size, (1.0, 1.0), size, size, 0, 0), **changes)


def four_ulp(scores):
    return 4 * np.spacing(np.asarray(scores, np.float32)).astype(np.float64)


def check(program, maps, parameters, placements=None, seed=1, stride=4):
    """Corners are exact but for 4 ulp of the score; pairs follow exactly from the corners."""
    images, classes, height, width = maps.tl_heat.shape
    placements = placements or [whole_input(maps.tl_heat.shape)] * images
    result = decode_host.decode(program, maps, parameters, placements, stride, seed)
    for image, (own, kinds) in enumerate(zip(result.candidates, result.corners, strict=True)):
        for kind, corners in zip(("tl", "br"), kinds, strict=True):
            heat, embed, offset = (getattr(maps[image], f"{kind}_{name}") for name in ("heat", "embed", "offset"))
            cells, values = decode_host.peaks_of(heat, parameters.top_k)
            labels, y, x = np.unravel_index(cells, (classes, height, width))
            with np.errstate(over="ignore"):
                columns = [
                    x.astype(np.float32) + offset[0, y, x].astype(np.float32),
                    y.astype(np.float32) + offset[1, y, x].astype(np.float32),
                    embed[0, y, x].astype(np.float32),
                ]
                scores = 1 / (1 + np.exp(-values.astype(np.float64)))
            usable = np.isfinite(columns).all(axis=0)
            assert corners.labels[: len(cells)].tolist() == np.where(usable, labels, -1).tolist()
            assert (corners.labels[len(cells) :] == -1).all()
            for found, want in zip(corners, columns, strict=False):
                np.testing.assert_array_equal(found[: len(cells)], want)
            assert (np.abs(corners.scores[: len(cells)] - scores) <= four_ulp(scores)).all()
        boxes, *columns = decode_host.expected_pairs(*kinds, parameters, placements[image], stride)
        np.testing.assert_array_equal(own.boxes, boxes)
        for found, want in zip((own.scores, own.tl_scores, own.br_scores, own.labels), columns, strict=True):
            np.testing.assert_array_equal(found, want)
    return result


SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 1, 9),
    (1, 1, 9, 1),
    (1, 3, 2, 2),
    (3, 2, 7, 13),
    (1, 2, 13, 7),
    (1, 20, 5, 6),
    (1, 1, 33, 128),
    (1, 1, 70, 36),
    (2, 1, 65, 132),  # a row takes two warps, a plane five chunks
]


@on_the_host
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_maps_decode_as_plain_array_code(counting, shape, dtype):
    # So many corners that peaks of little heat count as well.
    check(counting, random_maps(shape, dtype=dtype), DecodeParameters(top_k=300, candidates=200))
    check(counting, random_maps(shape, coarse=True, dtype=dtype), DecodeParameters(top_k=20, candidates=37))


@on_the_host
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 9, 11), pytest.param((1, 1, 40, 132), marks=pytest.mark.slow)], ids=str
)
def test_sanitizers_find_nothing(sanitized, shape, dtype):
    special = (np.nan, np.inf, -np.inf)
    check(sanitized, random_maps(shape, coarse=True, special=special, dtype=dtype), DecodeParameters(20, 50))


@pytest.mark.slow
@on_the_host
@pytest.mark.parametrize("shape", [(1, 1, 33, 40), (1, 2, 9, 7)], ids=str)
def test_thread_sanitizer_finds_no_race(threaded, shape):
    check(threaded, random_maps(shape, coarse=True), DecodeParameters(top_k=20, candidates=30))


@pytest.mark.slow
@on_the_host
def test_thread_sanitizer_finds_no_race_where_lists_are_cut(threaded):
    maps = constant_maps((1, 1, 33, 256))
    check(threaded, maps, DecodeParameters(top_k=20, candidates=10))


def constant_maps(shape, value=-2.0):
    maps = random_maps(shape, coarse=True)
    return replace(maps, tl_heat=np.full(shape, value, np.float32), br_heat=np.full(shape, value, np.float32))


@st.composite
def coarse_maps(draw):
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    special = draw(st.sampled_from([(), (np.nan,), (np.nan, np.inf, -np.inf)]))
    arrays = []
    for name in OUTPUT_NAMES:
        channels, palette = {
            "heat": (shape[1], (-3.0, -1.0, -0.0, 0.0, 1.0, 2.0, *special)),
            "embed": (1, (-0.5, 0.0, 0.25, 0.5, 0.75, *special)),
            "offset": (2, (-0.25, 0.0, 0.25, 0.5, 1.0, *special)),
        }[name.split("_")[1]]
        size = (shape[0], channels, *shape[2:])
        arrays.append(draw(hnp.arrays(np.float32, size, elements=st.sampled_from(palette), fill=st.nothing())))
    return CornerMaps(*arrays)


@on_the_host
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    maps=coarse_maps(),
    parameters=st.builds(
        DecodeParameters,
        top_k=st.sampled_from([1, 2, 5, 12, 100]),
        candidates=st.sampled_from([1, 3, 12, 100]),
        embedding_distance=st.sampled_from([0.0, 0.25, 0.5, 2.0]),
        reject_empty=st.booleans(),
    ),
    seed=st.integers(1, 99),
)
def test_maps_with_ties_and_special_values_decode_as_plain_array_code(counting, maps, parameters, seed):
    check(counting, maps, parameters, seed=seed)


@pytest.mark.slow
@on_the_host
@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
def test_as_many_corners_and_candidates_as_there_can_be(counting, coarse):
    # Of 1024 corners of one class far more than 1024 pairs are left, and more than shared memory lists.
    maps = random_maps((1, 1, 129, 128), coarse=coarse)
    found = check(counting, maps, DecodeParameters(top_k=1024, candidates=1024)).candidates[0]
    assert 0 < len(found) <= 1024


@on_the_host
def test_a_single_corner_and_candidate(counting):
    maps = random_maps((2, 3, 20, 24))
    check(counting, maps, DecodeParameters(top_k=1, candidates=1, embedding_distance=9.0))


@pytest.mark.slow
@on_the_host
@pytest.mark.parametrize("top_k", [1, 100, 1024])
def test_on_constant_maps_the_first_cells_are_the_best(counting, top_k):
    result = check(counting, constant_maps((1, 1, 64, 128)), DecodeParameters(top_k=top_k, candidates=50))
    assert set(result.corners[0][0].labels.tolist()) <= {0, -1}


@on_the_host
def test_lists_that_overflow_again_and_again_keep_the_best(counting):
    # Each cell of a row is a peak, and each row is higher than those before it.
    rows = np.repeat(np.arange(129.0, dtype=np.float32) // 2, 2)[:129]
    rows[1::4] -= 200
    maps = random_maps((1, 1, 129, 132))
    heat = np.broadcast_to(rows[:, None], (1, 1, 129, 132)).astype(np.float32)
    check(counting, replace(maps, tl_heat=heat, br_heat=heat[..., ::-1, :]), DecodeParameters(1024, 30))


@on_the_host
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_maps_of_one_special_value(counting, value):
    found = check(counting, constant_maps((1, 2, 9, 12), value), DecodeParameters(top_k=30, candidates=40))
    assert (found.corners[0][0].labels == -1).all() == bool(np.isnan(value))


@on_the_host
def test_there_may_be_no_pair(counting):
    maps = random_maps((1, 2, 9, 12))
    far = replace(maps, br_embed=maps.br_embed + 100)
    assert len(check(counting, far, DecodeParameters()).candidates[0]) == 0


@on_the_host
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1, 2, 128, 128), (2, 1, 63, 100), (1, 1, 40, 264), (1, 1, 40, 37)], ids=str)
def test_each_heat_value_is_read_once(counting, shape, dtype):
    maps = random_maps(shape, dtype=dtype)
    moved = check(counting, maps, DecodeParameters()).moved
    assert [heat.read for heat in moved[:2]] == [maps.tl_heat.nbytes] * 2
    assert all(one.written == 0 for one in moved[:6])
    # Embeddings and offsets are gathered at the best corners only.
    assert all(one.read <= shape[0] * 2 * 100 * 4 for one in moved[2:6])


@on_the_host
def test_a_row_wider_than_a_block_takes_at_once(counting):
    maps = random_maps((1, 1, 9, 1300))
    moved = check(counting, maps, DecodeParameters()).moved
    # Tiles of 512 columns: each of two borders is looked at from both sides.
    assert moved[0].read == maps.tl_heat.nbytes + 2 * 2 * 9 * 4


@on_the_host
def test_maps_may_lie_anywhere(counting):
    shape = (1, 2, 20, 24)
    shifted = []
    for name in OUTPUT_NAMES:
        array = getattr(random_maps(shape), name)
        shifted.append(np.concatenate([[0], array.ravel()]).astype(np.float32)[1:].reshape(array.shape))
    check(counting, CornerMaps(*shifted), DecodeParameters())


@on_the_host
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("geometry", ["fit", "native"])
def test_boxes_come_back_to_the_frame(counting, geometry, mirrored):
    spec = ModelSpec("any", ("a", "b"), 4, 16, (63, 95), (255, 255), dynamic=True, geometry=geometry)
    for frame_size, scale in (((126, 190), 1.0), ((50, 201), 0.7), ((301, 40), 1.0)):
        view = replace(place(frame_size, spec, [scale])[0], mirrored=mirrored)
        height, width = ((side + 1) // 4 for side in view.input_size)
        maps = random_maps((1, 2, height, width), seed=7)
        found = check(counting, maps, DecodeParameters(candidates=300), [view]).candidates[0]
        assert len(found) > 0
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([*view.extent[::-1]] * 2, np.float32)).all()


@on_the_host
def test_boxes_in_the_border_only_are_left_out(counting):
    view = Placement((20, 10), (47, 63), (1.0, 1.0), (20, 10), (20, 10), 14, 26)
    maps = random_maps((1, 1, 12, 16), seed=3)
    found = check(counting, maps, DecodeParameters(embedding_distance=9.0), [view])
    _, scores, *_ = decode_host.expected_pairs(
        *found.corners[0], DecodeParameters(embedding_distance=9.0), whole_input((1, 1, 12, 16))
    )
    assert 0 < len(found.candidates[0]) < len(scores)


@on_the_host
@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
def test_a_batch_decodes_as_the_runtime_does(counting, coarse):
    maps = random_maps((3, 4, 31, 24), coarse=coarse)
    parameters = DecodeParameters(top_k=60, candidates=1000)
    view = whole_input(maps.tl_heat.shape, mirrored=True)
    result = decode_host.decode(counting, maps, parameters, [view] * 3)
    for image, found in enumerate(result.candidates):
        want = reference(maps[image], parameters)
        boxes = view.to_frame(cells_to_input(want.boxes, view.input_size, 4))
        clipped, inside = clip_to_frame(boxes, view.extent)
        assert len(want) < parameters.candidates  # so that scores a few ulp apart decide nothing but the order
        assert len(found) == int(inside.sum())
        np.testing.assert_allclose(found.scores, want.scores[inside], rtol=5e-7)  # 4 ulp
        rows = sorted(zip(want.labels[inside].tolist(), clipped[inside].tolist(), strict=True))
        assert sorted(zip(found.labels.tolist(), found.boxes.tolist(), strict=True)) == rows


@pytest.mark.slow
@on_the_host
def test_full_size_maps_of_80_classes_decode_as_the_runtime_does(counting):
    maps = random_maps((1, 80, 128, 128), seed=5)
    maps.tl_heat[:] = np.round(maps.tl_heat * 8) / 8
    result = check(counting, maps, DecodeParameters())
    for kind, corners in zip(("tl", "br"), result.corners[0], strict=True):
        cells, _ = find_peaks(getattr(maps, f"{kind}_heat")[0], 100)
        assert corners.labels.tolist() == (cells // (128 * 128)).tolist()
        offset = getattr(maps, f"{kind}_offset")[0, 0].ravel()
        np.testing.assert_array_equal(corners.x, (cells % 128).astype(np.float32) + offset[cells % (128 * 128)])


# What is refused.

MAPS = {name: 4096 * (1 + index) for index, name in enumerate(OUTPUT_NAMES)}
SHAPE = (1, 2, 8, 8)


def refuse(match, error=BackendError, **changes):
    request = {"maps": MAPS, "shape": SHAPE, "top_k": 100, "candidates": 100, "views": 8, "capacity": 100}
    request |= {"workspace": 1 << 20, "size": 1 << 30, "first_view": 0, **changes}
    parameters = DecodeParameters(request["top_k"], request["candidates"])
    with pytest.raises(error, match=match):
        kernels.decode(
            kernels.DeviceMaps(**{**MAPS, **request["maps"]}, shape=request["shape"]),
            parameters,
            request["views"],
            CandidateMemory(1 << 16, 1, request["capacity"]),
            request["workspace"],
            request["size"],
            request["first_view"],
        )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"top_k": 1025}, r"decode.top_k: the GPU's kernels keep 1 to 1024, got 1025"),
        ({"candidates": 1025}, r"decode.candidates: the GPU's kernels keep 1 to 1024, got 1025"),
        ({"capacity": 99}, r"expected room for 100 of each of views 0 to 0, got 99 of each of 1"),
        ({"first_view": 1}, r"views 1 to 1, got 100 of each of 1"),
        ({"size": 100}, r"workspace of decode: expected at least \d+ bytes, got 100"),
        ({"workspace": 8}, r"workspace: expected an address on the device, a multiple of 16, got 0x8"),
        ({"views": 0}, r"views: expected an address"),
        ({"maps": {"tl_heat": 0}}, r"tl_heat: expected an address"),
        ({"maps": {"br_offset": 6}}, r"br_offset: expected an address on the device, a multiple of 4, got 6"),
        ({"capacity": 1025}, r"1 to 1024 candidates of each"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_impossible_request_is_refused(changes, match):
    refuse(match, **changes)


@pytest.mark.parametrize("shape", [(1, 0, 8, 8), (0, 1, 8, 8), (1, 1, 0, 8), (1, 1, 8, 0)], ids=str)
def test_empty_maps_are_refused(shape):
    refuse("at least one image, class, row and column", SizeError, shape=shape)


@pytest.mark.parametrize("shape", [(1, 1, 2**16, 2**15), (1, 2**20, 64, 64), (40_000, 1, 1, 1)], ids=str)
def test_maps_too_large_to_number_are_refused(shape):
    refuse("at most", SizeError, shape=shape)


def test_no_corner_to_keep_is_refused():
    with pytest.raises(Exception, match="top_k and candidates of at least 1"):
        DecodeParameters(top_k=0)

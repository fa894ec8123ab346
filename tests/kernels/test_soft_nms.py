"""The kernels of soft-NMS, on the CPU: the survivors, scores and boxes of the reference, for any number of views."""

from dataclasses import replace

import numpy as np
import pytest
from host import host_cuda, kernel_host

from cornernet_runtime.bundle.spec import NmsParameters
from cornernet_runtime.detections import Candidates
from cornernet_runtime.errors import BackendError
from cornernet_runtime.kernels import soft_nms as kernels
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.processing.nms import merging_soft_nms, soft_nms

on_the_host = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))
POISON = 0xCD  # fills memory that nobody has written
METHODS = ["gaussian", "linear", "hard"]


@pytest.fixture(scope="module")
def counting():
    # This one takes the reductions by shuffles, as on compute capability 7.5.
    flags = ["-O2", "-DCORNERNET_SHUFFLE"]
    return kernel_host.build_kernels(["soft_nms"], flags, "count")


@pytest.fixture(scope="module")
def sanitized():
    return kernel_host.build_kernels(["soft_nms"], host_cuda.ADDRESS)


@pytest.fixture(scope="module")
def threaded():
    return kernel_host.build_kernels(["soft_nms"], host_cuda.THREAD, "threads")


def random_views(counts, classes, seed=0, spread=100, ties=False):
    """Candidates of several views: boxes in a square of side ``spread`` and scores that fall within a view."""
    random = np.random.default_rng([seed, classes, *counts])
    views = []
    for count in counts:
        corners = random.uniform(0, spread, (count, 2))
        boxes = np.concatenate([corners, corners + random.uniform(0, spread / 2, (count, 2))], axis=1)
        corner_scores = random.uniform(0, 1, (count, 2)) ** 2
        if ties:
            boxes, corner_scores = np.round(boxes / 16) * 16, np.round(corner_scores * 4) / 4
        corner_scores = corner_scores[np.argsort(-corner_scores.sum(1), kind="stable")].astype(np.float32)
        scores = corner_scores.mean(axis=1, dtype=np.float32)
        labels = random.integers(0, classes, count)
        views.append(Candidates(boxes.astype(np.float32), scores, *corner_scores.T.copy(), labels))
    return views


def run(program, frames, classes, parameters, capacity, merging=False, seed=1):
    """Return boxes, scores and labels of each frame, and the bytes moved of the candidates."""
    views = [view for frame in frames for view in frame]
    nbytes = CandidateMemory(16, len(views), capacity).nbytes
    block = np.full(nbytes, POISON, np.uint8)
    found = CandidateMemory(block.ctypes.data, len(views), capacity)
    for number, view in enumerate(views):
        arrays = found.arrays(number)
        columns = {name: getattr(view, name) for name in ("boxes", "scores", "tl_scores", "br_scores")}
        columns |= {"labels": view.labels.astype(np.int32), "counts": np.array([len(view)], np.int32)}
        for name, column in columns.items():
            start = getattr(arrays, name) - found.address
            block[start:][: column.nbytes] = np.ascontiguousarray(column).ravel().view(np.uint8)
    room = kernels.workspace_bytes(found, len(frames), classes, parameters)
    workspace = np.full(room, POISON, np.uint8)
    most = parameters.max_detections
    output = np.full(kernels.DetectionMemory(16, len(frames), most).nbytes, POISON, np.uint8)
    detections = kernels.DetectionMemory(output.ctypes.data, len(frames), most)
    launches = kernels.soft_nms(found, classes, parameters, detections, workspace.ctypes.data, room, merging=merging)
    kernel_host.run(program, launches, [block, workspace, output], seed)
    results = [detections.read(output, frame) for frame in range(len(frames))]
    for frame, (boxes, *_) in enumerate(results):
        own = output[frame * detections.frame_bytes :][: 16 + most * 24]
        assert not own[4:16].any()
        assert not own[16 + len(boxes) * 16 : 16 + most * 16].any()
        assert not own[16 + most * 20 + len(boxes) * 4 : 16 + most * 24].any()
    return results


def check(program, frames, classes, parameters, capacity=None, merging=False, seed=1):
    """Compare with the reference: the same boxes in the same order, but for scores that are nearly equal."""
    capacity = capacity or max(1, *(len(view) for frame in frames for view in frame))
    results = run(program, frames, classes, parameters, capacity, merging, seed)
    for views, (boxes, scores, labels) in zip(frames, results, strict=True):
        found = Candidates.joined(views)
        if merging:
            corner_scores = np.stack([found.tl_scores, found.br_scores], axis=1)
            kept, want, moved = merging_soft_nms(found.boxes, found.scores, corner_scores, found.labels, parameters)
        else:
            kept, want = soft_nms(found.boxes, found.scores, found.labels, parameters)
            moved = found.boxes[kept]
        # A score is the product of up to 100 factors, each within 2 ulp, mostly of 1 and so exact.
        np.testing.assert_allclose(scores, want, rtol=2e-5)
        assert labels.tolist() == found.labels[kept].tolist()
        # A weight (1 - decay) ** exponent is off by 2 ulp of 1 to a low power. That tells where the corner's own score
        # is next to nothing: its neighbours then decide where it goes, be their weights ever so small.
        atol = 0 if not merging else 1e-3 if parameters.merge_exponent == 10 else 1e-2
        np.testing.assert_allclose(boxes, moved, rtol=0, atol=atol)
    return results


@on_the_host
@pytest.mark.parametrize("merging", [False, True], ids=["plain", "merging"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("counts", "classes"),
    [((1,), 1), ((60,), 1), ((128,), 1), ((129,), 1), ((300,), 1), ((200, 50), 3), ((0, 40, 0, 7), 80)],
    ids=str,
)
def test_survivors_scores_and_boxes_are_those_of_the_reference(counting, counts, classes, method, merging):
    views = random_views(counts, classes)
    check(counting, [views], classes, NmsParameters(method=method, max_detections=50), merging=merging)


@on_the_host
@pytest.mark.parametrize("merging", [False, True], ids=["plain", "merging"])
def test_the_worst_case_of_a_thousand_candidates_of_one_class(counting, merging):
    views = random_views((1000,), 1)
    (result,) = check(counting, [views], 1, NmsParameters(), merging=merging)
    assert len(result[1]) == 100


@on_the_host
@pytest.mark.parametrize("merging", [False, True], ids=["plain", "merging"])
def test_ten_views_of_a_thousand_candidates(counting, merging):
    views = random_views((1000,) * 9 + (900,), 5, spread=600)
    check(counting, [views], 5, NmsParameters(max_detections=20), merging=merging)


@on_the_host
@pytest.mark.parametrize("method", METHODS)
def test_ties_go_to_the_earlier_candidate(counting, method):
    # The decay of boxes on a coarse grid is as coarse, so scores tie within and across classes to the last.
    for seed in range(4):
        views = random_views((40, 60), 3, seed, ties=True)
        check(counting, [views], 3, NmsParameters(method=method, sigma=1e9), seed=seed)


@on_the_host
def test_frames_of_a_batch_do_not_mix(counting):
    frames = [random_views((30, 20), 4, seed) for seed in range(3)]
    check(counting, frames, 4, NmsParameters(max_detections=30))


@on_the_host
@pytest.mark.parametrize("extent", [0.0, 1.0])
def test_empty_boxes_and_scores_below_the_floor_or_nan_are_as_in_the_reference(counting, extent):
    (view,) = random_views((80,), 2)
    view.boxes[::3, 2:] = view.boxes[::3, :2]
    view.boxes[3] = view.boxes[6]
    view.scores[5::9] = np.nan
    view.scores[60:] = 0.0005
    view.scores[61] = 0.001
    check(counting, [[view]], 2, NmsParameters(pixel_extent=extent))


@on_the_host
def test_no_candidate_is_no_detection(counting):
    (result,) = check(counting, [random_views((0, 0), 2)], 2, NmsParameters())
    assert [len(column) for column in result] == [0, 0, 0]


@on_the_host
@pytest.mark.parametrize("most", [1, 1024])
def test_the_final_cut_is_as_asked_for(counting, most):
    views = random_views((150, 90), 2)
    (result,) = check(counting, [views], 2, NmsParameters(max_detections=most, method="hard"))
    assert len(result[1]) == most if most == 1 else len(result[1]) < 240


@on_the_host
@pytest.mark.parametrize("exponent", [0.0, 1.0, 10.0])
def test_merged_boxes_stay_within_the_frame(counting, exponent):
    (view,) = random_views((200,), 1, spread=300)
    view = replace(view, boxes=view.boxes.clip(0, np.float32(101.1)))
    parameters = NmsParameters(merge_exponent=exponent)
    ((boxes, *_),) = check(counting, [[view]], 1, parameters, merging=True)
    assert (boxes >= 0).all()
    assert (boxes <= np.float32(101.1)).all()


@on_the_host
def test_corners_of_score_zero_stay(counting):
    (view,) = random_views((30,), 1)
    view = replace(view, br_scores=np.zeros(30, np.float32))
    ((boxes, *_),) = check(counting, [[view]], 1, NmsParameters(), merging=True)
    assert boxes[0, 2:].tolist() == view.boxes[0, 2:].tolist()


@on_the_host
@pytest.mark.parametrize("merging", [False, True], ids=["plain", "merging"])
@pytest.mark.parametrize(("counts", "capacity"), [((70,), 70), ((600, 1), 700)], ids=str)
def test_sanitizers_find_nothing(sanitized, counts, capacity, merging):
    parameters = NmsParameters(max_detections=7)
    check(sanitized, [random_views(counts, 2)], 2, parameters, capacity, merging)


@pytest.mark.slow
@on_the_host
@pytest.mark.parametrize("merging", [False, True], ids=["plain", "merging"])
def test_thread_sanitizer_finds_no_race(threaded, merging):
    check(threaded, [random_views((150,), 1)], 1, NmsParameters(max_detections=5), merging=merging)


# What is refused.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"frames": 3}, r"as many views of each of 3 frames, got 4"),
        ({"capacity": 1000, "views": 12, "frames": 1}, r"at most 10240 of a frame, got 12000; use fewer scales"),
        ({"classes": 0}, r"classes: expected at least one, got 0"),
        ({"size": 15}, r"workspace of soft-NMS: expected at least \d+ bytes, got 15"),
        ({"workspace": 24}, r"workspace: expected an address on the device, a multiple of 16"),
        ({"most": 99}, r"detections: expected room for 100 of each frame, got 99"),
        ({"most": 1025, "max_detections": 1025}, r"1 to 1024 detections of each, got 4? ?.*1025; lower nms"),
        ({"frames": 0}, r"expected 1 to 65535 frames"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_impossible_request_is_refused(changes, match):
    request = {"views": 4, "capacity": 100, "frames": 2, "classes": 3, "most": 100, "max_detections": 100}
    request |= {"workspace": 1 << 20, "size": 1 << 30, **changes}
    with pytest.raises(BackendError, match=match):
        kernels.soft_nms(
            CandidateMemory(1 << 16, request["views"], request["capacity"]),
            request["classes"],
            NmsParameters(max_detections=request["max_detections"]),
            kernels.DetectionMemory(1 << 24, request["frames"], request["most"]),
            request["workspace"],
            request["size"],
        )

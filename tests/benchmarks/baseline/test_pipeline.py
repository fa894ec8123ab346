"""The published pipeline, as written down for comparison, finds what the detector finds."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from cases.small import SMALL_SPEC, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHIPPED

from cornernet_bench.baseline.nms import cut, suppress_class
from cornernet_bench.baseline.pipeline import PublishedPipeline, decode_in_torch, with_published_pools
from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model import CornerTensors
from cornernet_export.model.corner_pool import Corner, corner_pool
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_export.verification.matching import box_iou
from cornernet_runtime import Detector
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.maps import CornerMaps
from cornernet_runtime.processing.nms import soft_nms
from cornernet_train.shapes import make_scene

# Sides that fit exactly, and sides that leave much border.
PUBLISHED = with_published_pools(small_model())
FRAMES = [(255, 319), (208, 312)]


@pytest.fixture(scope="module")
def shipped():
    """The shipped network, and its spec with frames at their own resolution."""
    checkpoint = load_checkpoint(SHIPPED)
    return checkpoint.model, replace(checkpoint.spec, geometry="native", dynamic=True, largest_size=(511, 511))


def scene(height, width, index=0):
    """A drawn scene cut, or repeated, to a size."""
    image = make_scene(77, index).image
    tiled = np.tile(image, (-(-height // image.shape[0]), -(-width // image.shape[1]), 1))
    return np.ascontiguousarray(tiled[:height, :width])


def with_size(detections):
    """Boxes, scores and labels of those with a size: the original keeps what lies wholly in the border, at the edge."""
    sizes = detections.boxes[:, 2:] - detections.boxes[:, :2]
    kept = (sizes > 0).all(axis=1)
    return detections.boxes[kept], detections.scores[kept], detections.labels[kept]


# From frame to boxes.


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", FRAMES)
def test_the_shipped_model_finds_the_same_on_frames_at_their_own_size(shipped, size, flip):
    model, spec = shipped
    frame = scene(*size)
    with Detector(TorchBackend(model), spec, flip=flip) as detector:
        expected = with_size(detector(frame))
    found = with_size(PublishedPipeline(load_checkpoint(SHIPPED).model, spec, flip=flip)(frame))
    # Above 0.05; near the hundredth detection the two cut at ties and at boxes in the border differently.
    clear = int(np.count_nonzero(expected[1] > 0.05))
    assert clear >= 8
    assert np.count_nonzero(found[1] > 0.05) == clear
    same = box_iou(expected[0][:clear], found[0][:clear]) > 0.999
    same &= expected[2][:clear, None] == found[2][:clear]
    # Two running maxima, two orders of sums: 1e-6 in a score of the network, which suppression passes on.
    same &= np.abs(expected[1][:clear, None] - found[1][:clear]) < 1e-5
    assert same.any(axis=1).all()
    assert same.any(axis=0).all()


def test_the_small_network_finds_the_same():
    # Random weights: pairs of every class all over a frame that leaves no border, where they would be dropped here and
    # suppress others there. Where there are fewer peaks than corners to keep, the original goes on with cells of score
    # 0, which the detector does not: fewer corners are kept.
    spec = replace(SMALL_SPEC, geometry="native", dynamic=True, largest_size=(127, 127))
    spec = replace(spec, decode=replace(spec.decode, top_k=40), nms=replace(spec.nms, max_detections=10_000))
    frame = np.random.default_rng(3).integers(0, 256, (78, 110, 3), np.uint8)
    with Detector(TorchBackend(small_model()), spec) as detector:
        expected = with_size(detector(frame))
    found = with_size(PublishedPipeline(small_model(), spec, flip=False)(frame))
    assert len(expected[0]) > 50
    for mine, theirs, tolerance in zip(expected, found, (1e-4, 1e-6, 0), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=tolerance)


def test_frames_fitted_into_an_input_come_back_in_their_own_pixels():
    checkpoint = load_checkpoint(SHIPPED)
    size = checkpoint.spec.input_size
    pipeline = PublishedPipeline(load_checkpoint(SHIPPED).model, checkpoint.spec, flip=False, input_size=size)
    alike = []
    with Detector(TorchBackend(checkpoint.model), checkpoint.spec) as detector:
        for index, shape in enumerate([(208, 312), (480, 640), (120, 150)]):
            frame = cv2.resize(make_scene(78, index).image, shape[::-1])
            expected, found = detector(frame).above(0.5), pipeline(frame).above(0.3)
            # The original's borders lie up to a pixel elsewhere, and a side that fits exactly loses one.
            same = (box_iou(expected.boxes, found.boxes) > 0.8) & (expected.labels[:, None] == found.labels)
            alike += same.any(axis=1).tolist()
    assert len(alike) >= 8
    assert np.mean(alike) > 0.9


def test_the_steps_are_announced_in_their_order(shipped):
    model, spec = shipped
    names = []

    class Step:
        def __init__(self, name):
            names.append(name)

        __enter__ = __exit__ = lambda *_: None

    pipeline = PublishedPipeline(model, spec)
    pipeline.stages = Step
    pipeline(scene(64, 64))
    assert names == ["preprocess", "upload", "network", "decode", "download", "decode", "soft_nms"]


def test_the_input_of_the_other_family_is_padded_with_its_mean_and_in_rgb():
    family = replace(
        SMALL_SPEC.normalisation, channel_order="rgb", mean=(0.4, 0.5, 0.6), std=(1, 1, 1), pad=(102, 127.5, 153)
    )
    spec = replace(SMALL_SPEC, normalisation=family, geometry="native", dynamic=True)
    pipeline = PublishedPipeline(small_model(), spec, flip=True)
    frame = np.full((40, 50, 3), (0, 51, 255), np.uint8)
    images = pipeline._prepare(frame, pipeline._place(40, 50))
    assert images.shape == (2, 3, 47, 63)
    np.testing.assert_allclose(images[0, :, 20, 30], [0.6, -0.3, -0.6], atol=1e-6)
    np.testing.assert_allclose(images[0, :, 0, 0], 0, atol=1e-6)
    np.testing.assert_array_equal(images[1], images[0, :, :, ::-1])


# Its parts.


@pytest.mark.parametrize("corner", list(Corner))
@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(*(st.integers(1, limit) for limit in (2, 3, 17, 19))), seed=st.integers(0, 1000))
def test_pooling_row_by_row_is_corner_pooling(corner, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(shape, generator=generator) for _ in range(2)]
    heads = PUBLISHED.top_left if corner is Corner.TOP_LEFT else PUBLISHED.bottom_right
    torch.testing.assert_close(heads[-1].pool(*maps), corner_pool(*maps, corner), rtol=0, atol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 4), reject_empty=st.booleans())
def test_decode_finds_the_candidates_of_the_runtime(seed, classes, reject_empty):
    rng = np.random.default_rng(seed)
    shapes = [(classes, 12, 13)] * 2 + [(1, 12, 13)] * 2 + [(2, 12, 13)] * 2
    maps = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    parameters = DecodeParameters(top_k=8, candidates=40, reject_empty=reject_empty)
    expected = decode(CornerMaps(*maps), parameters)
    found = decode_in_torch(
        CornerTensors(*(torch.from_numpy(values)[None] for values in maps)),
        top_k=8,
        candidates=40,
        reject_empty=reject_empty,
    )
    possible = found.scores[0] > -1
    # The two sigmoids differ in the last bits, so near-ties may stand in another order: compared as sets of rows.
    rows = [
        np.column_stack([labels, boxes, scores])
        for labels, boxes, scores in (
            (expected.labels, expected.boxes, expected.scores),
            (found.labels[0][possible].numpy(), found.boxes[0][possible].numpy(), found.scores[0][possible].numpy()),
        )
    ]
    ordered = [values[np.lexsort(values[:, :5].T)] for values in rows]
    np.testing.assert_allclose(*ordered, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["gaussian", "linear", "hard"])
def test_suppression_class_by_class_is_that_of_the_runtime(method):
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 100, (80, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (80, 2))], axis=1).astype(np.float32)
    scores = rng.uniform(0.0001, 1, 80).astype(np.float32)
    parameters = NmsParameters(method=method, max_detections=80)
    picked, final = suppress_class(boxes, scores, parameters)
    expected, expected_scores = soft_nms(boxes, scores, np.zeros(80, np.int64), parameters)
    np.testing.assert_array_equal(picked, expected)
    np.testing.assert_allclose(final, expected_scores, rtol=1e-5)


def test_nothing_to_suppress_gives_nothing():
    picked, final = suppress_class(np.empty((0, 4), np.float32), np.empty(0, np.float32), NmsParameters())
    assert (len(picked), len(final)) == (0, 0)


def test_the_cut_keeps_what_equals_the_last():
    scores = np.array([0.2, 0.9, 0.5, 0.5, 0.1, 0.5], np.float32)
    assert cut(scores, 2).tolist() == [1, 2, 3, 5]
    assert cut(scores, 4).tolist() == [1, 2, 3, 5]
    assert cut(scores, 6).tolist() == [1, 2, 3, 5, 0, 4]
    assert cut(scores[:0], 3).tolist() == []

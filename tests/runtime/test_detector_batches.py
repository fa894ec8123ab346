"""Batches of frames and views, and that no call changes the next."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cases.detector import (
    FIVE_SCALES,
    NATIVE,
    SEVERAL,
    SIZES,
    SPEC,
    PlantedBackend,
    RandomBackend,
    assert_equal,
    assert_same_but_near_ties,
    grey,
    noise,
)
from cases.small import small_model

from cornernet_export.torch_backend.cpu import TorchBackend, open_checkpoint
from cornernet_export.verification.verify import input_of
from cornernet_runtime import Detector
from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_runtime.processing.preprocess import Preprocessor

# Batches and state.


def test_a_batch_is_cut_to_what_the_backend_takes_and_keeps_its_order():
    boxes = {level: ([[10 * level, 20, 10 * level + 60, 120]], [level % 3]) for level in range(1, 8)}
    backend = PlantedBackend(boxes, max_batch=3)
    sizes = SIZES[:7]
    frames = [grey(*size, level) for level, size in enumerate(sizes, start=1)]
    found = Detector(backend, SPEC).batch(frames)
    assert backend.batches == [[1, 2, 3], [4, 5, 6], [7]]
    for level, (size, detections) in enumerate(zip(sizes, found, strict=True), start=1):
        (height, width), placement = size, fit(size, SPEC.input_size)
        expected = placement.to_frame(np.array(boxes[level][0], float)).clip(0, [width, height, width, height])
        assert detections.labels.tolist() == [level % 3]
        assert detections.boxes == pytest.approx(expected, abs=0.05)  # as for planted boxes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_finds_what_single_frames_give(bundle_path, count):
    frames = [noise(*size, seed) for seed, size in enumerate([(63, 95), (200, 90), (5, 7), (480, 640), (63, 95)])]
    with Detector.open(bundle_path) as detector:
        alone = [detector(frame) for frame in frames[:count]]
        together = detector.batch(frames[:count])
    assert len(together) == count
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)


def test_a_batch_of_pytorch_finds_what_single_frames_give(checkpoint_path):
    frames = [noise(*size, seed) for seed, size in enumerate([(63, 95), (200, 90), (480, 640)])]
    with open_checkpoint(checkpoint_path) as detector:
        maps = detector.backend(np.concatenate([input_of(detector, frame) for frame in frames]))
        for index, found in enumerate(detector.batch(frames)):
            assert_same_but_near_ties(detector, frames[index], found, maps[index])


def test_an_empty_batch_gives_an_empty_list():
    backend = PlantedBackend({})
    assert Detector(backend, SPEC).batch([]) == []
    assert backend.batches == []


def test_results_are_the_same_each_time_whatever_came_between(bundle_path):
    frame = noise(90, 120)
    with Detector.open(bundle_path) as detector:
        first = detector(frame)
        copy = replace(first, boxes=first.boxes.copy(), scores=first.scores.copy(), labels=first.labels.copy())
        detector(noise(33, 200, 1))
        detector.batch([noise(10, 10), noise(63, 95)])
        again = detector(frame)
    assert_equal(again, copy)
    assert_equal(first, copy)  # later frames must not write into earlier results


def test_the_frame_is_not_changed(bundle_path):
    for size in ((90, 120), (63, 95)):
        frame = noise(*size)
        with Detector.open(bundle_path) as detector:
            detector(frame)
        assert np.array_equal(frame, noise(*size))


# Batches of frames and views.

MIXED = [(60, 90), (30, 30), (60, 90), (200, 17), (1, 1), (600, 40), (31, 47), (60, 91), (30, 30)]


@pytest.mark.parametrize("max_batch", [1, 2, 4])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.5), True)])
@pytest.mark.parametrize("spec", [NATIVE, SPEC, SEVERAL], ids=["native", "fitted", "several sizes"])
def test_frames_of_all_sizes_find_in_batches_what_they_find_alone(spec, scales, flip, max_batch):
    frames = [noise(*size, seed) for seed, size in enumerate(MIXED[:6])]
    alone = [Detector(RandomBackend(spec), spec, scales=scales, flip=flip)(frame) for frame in frames]
    together = Detector(RandomBackend(spec, max_batch), spec, scales=scales, flip=flip).batch(frames)
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)
    assert min(len(one) for one in together[:4]) > 0, "only a frame of a pixel may show nothing"


@pytest.mark.parametrize("max_batch", [1, 2, 4])
def test_every_view_of_every_frame_is_run_exactly_once(max_batch):
    # That no run is larger than the backend takes is for SizedBackend to see.
    frames = [noise(*size, seed) for seed, size in enumerate(MIXED)]
    expected = Counter()
    for frame in frames:
        for view in place(frame.shape[:2], NATIVE, (0.5, 1.0), flip=True):
            image = np.empty((3, *view.input_size), np.float32)
            Preprocessor(NATIVE.normalisation)(frame, view, image)
            expected[image.tobytes()] += 1
    backend = RandomBackend(NATIVE, max_batch)
    Detector(backend, NATIVE, scales=(0.5, 1.0), flip=True).batch(frames)
    assert Counter(image.tobytes() for run in backend.runs for image in run) == expected


@pytest.mark.parametrize(("max_batch", "runs"), [(1, [1] * 10), (2, [2] * 5), (3, [3, 3, 3, 1]), (4, [4, 4, 2])])
def test_views_of_one_size_fill_the_runs(max_batch, runs):
    backend = RandomBackend(NATIVE, max_batch)
    Detector(backend, NATIVE, flip=True).batch([noise(60, 90, seed) for seed in range(5)])
    assert sorted((len(run) for run in backend.runs), reverse=True) == runs


def test_no_frames_are_no_runs_whatever_the_views():
    backend = RandomBackend(NATIVE)
    assert Detector(backend, NATIVE, flip=True, scales=FIVE_SCALES).batch([]) == []
    assert backend.runs == []


@pytest.mark.parametrize("place_of_bad", [0, 1, 4])
def test_a_bad_frame_among_good_ones_is_refused_before_any_run(place_of_bad):
    backend = RandomBackend(NATIVE, max_batch=1)
    frames = [noise(20, 30, seed) for seed in range(4)]
    frames.insert(place_of_bad, np.zeros((20, 30), np.uint8))
    with pytest.raises(FrameError, match=r"a frame is .*uint8 \[H, W, 3\]"):
        Detector(backend, NATIVE, flip=True).batch(frames)
    assert backend.runs == []


def test_results_with_views_are_the_same_whatever_came_between():
    detector = Detector(RandomBackend(NATIVE), NATIVE, flip=True, scales=(0.5, 1.0))
    first = detector(noise(60, 90))
    copy = replace(first, boxes=first.boxes.copy(), scores=first.scores.copy(), labels=first.labels.copy())
    detector.batch([noise(300, 200), noise(1, 1), noise(60, 90, 1)])
    assert_equal(detector(noise(60, 90)), copy)
    assert_equal(first, copy)


# A real network in PyTorch, at sizes that it was not made for.


def test_a_real_network_gives_each_image_of_a_batch_the_maps_that_it_gives_it_alone():
    runs, network = [], TorchBackend(small_model())

    class Recorded(TorchBackend):
        def __call__(self, images):
            runs.append((images.copy(), super().__call__(images)))
            return runs[-1][1]

    frames = [noise(*size, seed) for seed, size in enumerate([(60, 90), (40, 30), (60, 90)])]
    found = Detector(Recorded(small_model()), NATIVE, flip=True).batch(frames)
    assert min(map(len, found)) > 10
    assert sorted(len(images) for images, _ in runs) == [2, 4]
    for images, maps in runs:
        for index in range(len(images)):
            alone = network(images[index : index + 1])
            for name in OUTPUT_NAMES:
                want, have = getattr(alone, name)[0], getattr(maps, name)[index]
                # Convolutions sum in another order for another batch size, which gives about 1e-6.
                assert np.abs(have - want).max() <= 1e-5 * np.abs(want).max()

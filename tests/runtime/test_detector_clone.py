"""Detectors of one model for several threads, on the CPU."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from cases.small import SMALL_SPEC, small_model

from cornernet_export.torch_backend.cpu import TorchBackend, open_checkpoint
from cornernet_runtime import Detector
from cornernet_runtime.errors import BackendError, FrameError

FRAMES = [np.random.default_rng(seed).integers(0, 256, (126, 190, 3), dtype=np.uint8) for seed in range(6)]


@pytest.fixture(params=["onnxruntime", "torch"])
def detector(request, bundle_path, checkpoint_path):
    if request.param == "torch":
        return open_checkpoint(checkpoint_path, flip=True, scales=(1.0, 0.5))
    return Detector.open(bundle_path, flip=True, scales=(1.0, 0.5))


def test_clones_find_the_same_at_the_same_time(detector):
    detectors = [detector, detector.clone(), detector.clone()]
    expected = [detector(frame) for frame in FRAMES]
    found, start = {}, threading.Barrier(len(detectors))

    def detect(number):
        start.wait()
        order = [(number + step) % len(FRAMES) for step in range(len(FRAMES))]  # others than the neighbours
        found[number] = {index: detectors[number](FRAMES[index]) for index in order}

    threads = [threading.Thread(target=detect, args=(number,)) for number in range(len(detectors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(detectors)):
        for index, want in enumerate(expected):
            assert np.array_equal(found[number][index].boxes, want.boxes)
            assert np.array_equal(found[number][index].scores, want.scores)
            assert np.array_equal(found[number][index].labels, want.labels)


def test_a_clone_looks_as_the_first_does(detector):
    clone = detector.clone()
    assert clone.spec == detector.spec
    assert (clone.flip, clone.scales) == (True, (1.0, 0.5))
    assert clone.backend.name == detector.backend.name
    assert clone.backend.max_batch == detector.backend.max_batch


@pytest.mark.parametrize("first", [0, 1])
def test_either_is_closed_first(detector, first):
    detectors = [detector, detector.clone()]
    expected = detector(FRAMES[0])
    detectors.pop(first).close()
    assert np.array_equal(detectors[0](FRAMES[0]).boxes, expected.boxes)
    with detectors[0].clone() as third:
        assert np.array_equal(third(FRAMES[0]).boxes, expected.boxes)
    detectors[0].close()


def test_what_is_large_is_shared(bundle_path, checkpoint_path):
    with Detector.open(bundle_path) as one, one.clone() as two:
        assert one.backend._session is two.backend._session
    with open_checkpoint(checkpoint_path) as one, one.clone() as two:
        assert one.backend._model is two.backend._model


def test_a_pipeline_around_another_network_than_the_backends_is_not_cloned():
    detector = Detector(TorchBackend(small_model()), SMALL_SPEC, pipeline=object())
    with pytest.raises(BackendError, match="not that of the backend torch; clone the network"):
        detector.clone()


def test_a_second_thread_is_refused_while_the_first_is_at_work(detector):
    inside, refused = threading.Event(), threading.Event()

    @contextmanager
    def wait(_stage):
        inside.set()
        assert refused.wait(30)
        yield

    detector.stages = wait
    found = []
    thread = threading.Thread(target=lambda: found.append(detector(FRAMES[0])))
    thread.start()
    assert inside.wait(30)
    for work in (detector, detector.corner_maps, lambda frame: detector.batch([frame])):
        with pytest.raises(BackendError, match=r"at work in another thread; clone\(\) gives each thread its own"):
            work(FRAMES[1])
    refused.set()
    thread.join()
    detector.stages = nullcontext
    assert np.array_equal(detector(FRAMES[0]).boxes, found[0].boxes)


def test_a_closed_detector_says_so(detector):
    with detector:
        detector(FRAMES[0])
        detector.close()
    detector.close()
    for work in (lambda: detector(FRAMES[0]), lambda: detector.corner_maps(FRAMES[0]), detector.clone):
        with pytest.raises(BackendError, match="this detector is closed; open the model again"):
            work()


def test_closing_waits_for_what_is_under_way(detector):
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def wait(_stage):
        inside.set()
        assert go_on.wait(30)
        yield

    detector.stages = wait
    found = []
    worker = threading.Thread(target=lambda: found.append(detector(FRAMES[0])))
    worker.start()
    assert inside.wait(30)
    closer = threading.Thread(target=lambda: (detector.close(), closed.set()))
    closer.start()
    assert not closed.wait(0.2)
    go_on.set()
    worker.join()
    closer.join()
    assert closed.is_set()
    assert len(found) == 1


def test_an_error_lets_go_of_the_detector(detector):
    with pytest.raises(FrameError):
        detector(np.zeros((3, 3), np.uint8))
    assert len(detector(FRAMES[0])) > 0


def test_a_detector_tells_what_it_is(bundle_path):
    with Detector.open(bundle_path, "onnxruntime") as detector:
        assert repr(detector) == "<Detector: small, fp32, 63x95, onnxruntime, the rest on the CPU>"


def test_closing_again_does_nothing(detector):
    with detector:
        detector.close()
    detector.close()


def test_the_backend_is_closed_where_the_pipeline_cannot_be():
    class Failing:
        def close(self):
            raise BackendError("the GPU failed")

    class Backend:
        closed = 0

        def close(self):
            self.closed += 1

    backend = Backend()
    detector = Detector(backend, SMALL_SPEC, pipeline=Failing())
    with pytest.raises(BackendError, match="the GPU failed"):
        detector.close()
    detector.close()
    assert backend.closed == 1

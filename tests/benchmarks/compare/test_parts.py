"""Parts of a comparison: how a contestant is named, which one no other beats, intervals, what maps tell."""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest
from cases.small import SMALL_SPEC, small_model

from cornernet_bench.compare.alone import open_alone
from cornernet_bench.compare.contestant import TORCH_BACKENDS, Contestant, disk_bytes, parse_contestant
from cornernet_bench.compare.entrant import Entrant
from cornernet_bench.compare.front import front, stars
from cornernet_bench.compare.maps import MapDifferences
from cornernet_bench.compare.report import Agreement, speeds
from cornernet_bench.measuring.intervals import Ratio
from cornernet_bench.measuring.machine import peak_rss_mib
from cornernet_bench.measuring.measurement import END_TO_END
from cornernet_bench.model_names import PUBLISHED
from cornernet_bench.models.open import open_model
from cornernet_export.torch_backend.cpu import HALF, TorchBackend
from cornernet_export.torch_backend.gpu import CUDA, CUDA_FP32
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, ModelError

# Processes of their own.


def test_a_process_of_its_own_never_sees_ctrl_c(bundle_path, monkeypatch):
    start = SpawnProcess.start

    def interrupted(self):
        start(self)
        os.kill(self.pid, signal.SIGINT)  # before its interpreter is up

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    subject = parse_contestant(str(bundle_path)).subject(0)
    assert open_alone(subject, [np.zeros((63, 95, 3), np.uint8)]).backend == "onnxruntime"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# Names.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("build/tiny", Contestant("", Path("build/tiny"))),
        ("build/tiny/", Contestant("", Path("build/tiny"))),
        ("tiny:flip", Contestant("", Path("tiny"), flip=True)),
        ("build/tiny/:flip", Contestant("", Path("build/tiny"), flip=True)),
        ("a.b/tiny@onnxruntime", Contestant("", Path("a.b/tiny"), "onnxruntime")),
        (
            "x/m.pkl@torch-cuda:stacks=1:scales=0.5,1:size=383x511:flip",
            Contestant("", Path("x/m.pkl"), "torch-cuda", flip=True, scales=(0.5, 1.0), size=(383, 511), stacks=1),
        ),
        ("C:/models/tiny:flip", Contestant("", Path("C:/models/tiny"), flip=True)),
        ("me@host/tiny", Contestant("", Path("me@host/tiny"))),
    ],
)
def test_a_contestant_is_a_path_a_backend_and_options(text, expected):
    assert parse_contestant(text) == replace(expected, text=text)


def test_what_exists_as_typed_has_no_options(tmp_path):
    (tmp_path / "odd@name:flip").mkdir()
    text = str(tmp_path / "odd@name:flip")
    assert parse_contestant(text) == Contestant(text, Path(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m:flop", "expected an option flip, scales=S,S,..., size=HxW or stacks=N, got 'flop'"),
        ("m:", "expected an option flip, scales=S,S,..., size=HxW or stacks=N, got ''"),
        ("m:stacks=none", "expected an option flip, scales=S,S,..., size=HxW or stacks=N, got 'stacks=none'"),
        ("m:size=511", "expected HxW such as 511x511, got '511'"),
        ("m:stacks=1:stacks=2", "m:stacks=1:stacks=2: stacks is given twice"),
        (
            "m:stacks=1",
            "m:stacks=1: a checkpoint is cut as it is opened; export this one again with --stacks 1",
        ),
        (
            "m@foo",
            "m@foo: a bundle or an .onnx file runs in tensorrt, onnxruntime, openvino, openvino-bf16, got 'foo'",
        ),
        (
            "m.pkl@openvino",
            (
                "m.pkl@openvino: a checkpoint runs in torch, torch-fp16, torch-cuda, torch-cuda-fp32, published, "
                "got 'openvino'"
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_name_is_told(text, message):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parse_contestant(text)
    assert str(caught.value) == message


def test_the_short_name_has_no_folders():
    assert parse_contestant("a/b/tiny@openvino:flip").name == "tiny@openvino:flip"
    assert parse_contestant("a/b/").name == "b"


def test_the_backends_of_checkpoints_are_those_of_the_exporter_and_the_published_pipeline():
    assert TORCH_BACKENDS == ("torch", HALF, CUDA, CUDA_FP32, PUBLISHED)


# Files.


def test_size_on_disk_is_of_what_the_backend_reads(tmp_path):
    for name, size in (("model.onnx", 5), ("model.onnx.data", 700), ("model.engine", 11), ("bundle.json", 13)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert disk_bytes(tmp_path, "onnxruntime") == 705
    assert disk_bytes(tmp_path / "model.onnx", "onnxruntime") == 705
    assert disk_bytes(tmp_path, "tensorrt") == 11


# Checkpoints cut after some of their stacks.


def test_a_checkpoint_opens_with_fewer_stacks(checkpoint_path):
    frame = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    with open_model(checkpoint_path) as whole, open_model(checkpoint_path, stacks=2) as same:
        expected = whole.corner_maps(frame)[0]
        np.testing.assert_array_equal(same.corner_maps(frame)[0].tl_heat, expected.tl_heat)
    with open_model(checkpoint_path, stacks=1) as cut:
        assert np.abs(cut.corner_maps(frame)[0].tl_heat - expected.tl_heat).max() > 0.1


def test_stacks_that_are_not_there_are_refused(checkpoint_path, bundle_path):
    with pytest.raises(ModelError, match="small has 2 stacks; choose 1 to 2, got 3"):
        open_model(checkpoint_path, stacks=3)
    with pytest.raises(BackendError, match="export this one again with --stacks 1"):
        open_model(bundle_path, stacks=1)


# Figures.


def test_the_front_holds_what_no_other_beats():
    points = [(10, 50), (20, 60), (20, 55), (30, 60), (5, 10), (10, 50), (1, math.nan), (math.nan, 99)]
    assert front(points) == [True, True, False, False, True, True, False, False]


def entrant(ap, times, resampled):
    """A contestant of which nothing but AP and times is known."""
    one = Entrant(1, Contestant("", Path()), None, None, 0, (), "host")
    one.samples, one.metrics, one.resampled = [{END_TO_END: time} for time in times], {"ap": ap}, np.array(resampled)
    return one


@pytest.mark.parametrize(
    ("times", "resampled", "starred"),
    [
        ([9, 12, 11], [50, 49, 51], True),  # as fast in a round, and not always less accurate
        ([9, 12, 11], [49, 48, 50], False),  # less accurate on every set of pictures
        ([12, 13, 12], [50, 49, 51], False),  # slower in every round
    ],
)
def test_what_is_within_the_noise_of_the_best_is_starred_too(times, resampled, starred):
    best = entrant(50.0, [10, 11, 10.5], [50, 49.5, 50.5])
    other = entrant(49.9, times, resampled)
    assert stars([best, other]) == [True, starred]
    assert stars([other, best]) == [starred, True]


def test_a_lone_one_is_not_starred():
    assert stars([entrant(50.0, [10], [50])]) == [False]
    assert stars([]) == []


def test_a_ratio_is_of_the_rounds_that_both_have():
    ratio = Ratio.of([10, 20, 30, 99], [5, 20, 60])
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1, 0.6, 1.8))


def rounds(network, whole):
    return [{"network": one, END_TO_END: other} for one, other in zip(network, whole, strict=True)]


def test_speeds_are_told_of_what_does_not_spread_by_more_than_half_its_median():
    steady, wide = [10.0, 11.0, 10.0, 11.0], [10.0, 10.0, 20.0, 20.0]
    first = rounds(steady, [2 * ms for ms in steady])
    assert speeds(first, rounds(steady, steady))[END_TO_END] == Ratio(2, 2, 2)
    assert list(speeds(first, rounds(wide, steady))) == [END_TO_END]
    assert speeds(first, rounds(steady, wide)) == {}
    assert speeds(rounds(steady, wide), first) == {}


def test_agreement_counts_what_either_found():
    assert Agreement(10, 8, 2).percent == pytest.approx(100 * 8 / 12)
    assert Agreement(0, 0, 3).percent == 0
    assert Agreement(0, 0, 0).percent == 100


def test_the_memory_of_a_process_is_its_own():
    held = np.ones(400 * 2**20, np.uint8)  # by this one, which starts the other
    code = "from cornernet_bench.measuring.machine import peak_rss_mib; print(peak_rss_mib())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert 20 < float(done.stdout) < 300 < len(held) / 2**20 < peak_rss_mib()


# Maps.


class Changed(TorchBackend):
    """The small network, with a change of its maps."""

    def __init__(self, change):
        super().__init__(small_model())
        self.change = change

    def __call__(self, images):
        maps = super().__call__(images)
        return replace(maps, **self.change(maps))


FRAMES = [np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8) for seed in range(2)]


def differences(change, tolerance=1e-3):
    found = MapDifferences(tolerance)
    with Detector(Changed(lambda _: {}), SMALL_SPEC) as first, Detector(Changed(change), SMALL_SPEC) as other:
        for frame in FRAMES:
            found.add(frame, first.corner_maps(frame)[0], other)
    return found


def scaled(*names):
    return lambda maps: {name: getattr(maps, name) * np.float32(1.01) for name in names}


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        (["br_heat"], "br_heat"),
        (["tl_offset", "br_offset"], "offset"),
        (["tl_heat", "tl_embed", "tl_offset"], "tl"),
        (["tl_heat", "br_embed"], None),
    ],
)
def test_outputs_that_differ_name_the_head_the_kind_or_the_corner(names, cause):
    found = differences(scaled(*names))
    assert found.cause()[0] == cause
    check = found.check()
    assert check.pictures == len(FRAMES)
    assert check.differing == tuple(name for name in check.errors if name in names)
    assert max(check.errors.values()) == pytest.approx(0.01, rel=1e-3)


def test_what_differs_in_no_pattern_is_listed():
    said = differences(scaled("tl_heat", "br_embed")).cause()[1]
    assert said.startswith("tl_heat, br_embed are up to 0.01 of the largest value off, where 0.001 means nothing: ")


def test_within_the_tolerance_nothing_differs():
    assert differences(scaled("tl_heat"), tolerance=0.02).cause() == (None, None)


def test_a_map_that_is_not_finite_differs():
    found = differences(lambda maps: {"tl_embed": np.full_like(maps.tl_embed, np.nan)})
    assert found.cause()[0] == "tl_embed"


def test_x_and_y_of_offsets_exchanged_are_found():
    found = differences(lambda maps: {name: getattr(maps, name)[:, ::-1] for name in ("tl_offset", "br_offset")})
    assert found.cause()[0] == "offset_xy"


def test_classes_permuted_in_one_corner_are_laid_at_its_heat():
    found = differences(lambda maps: {"br_heat": maps.br_heat[:, [1, 2, 0]]})
    assert found.cause()[0] == "br_heat"


def test_without_a_picture_there_is_no_check():
    assert MapDifferences(1e-3).check() is None

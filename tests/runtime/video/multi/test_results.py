"""Many sources, one model: whose results are whose."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from cases.multi import made_up, pictures, taken_from
from cases.video_clips import moving_shapes, write_clip

from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 4), (3, 2)])
def test_each_source_has_what_the_detector_finds_in_its_order(detector, tmp_path, workers, batch):
    clip = write_clip(tmp_path / "clip.mp4", moving_shapes(12))
    scenes = {seed: list(moving_shapes(9, (126, 190 + 10 * seed), seed=seed)) for seed in (1, 2)}
    sources = [clip, *(Frames(frames, fps=10, name=f"scene {seed}") for seed, frames in scenes.items())]
    with MultiStream(detector, sources, workers=workers, batch=batch) as stream:
        results = defaultdict(list)
        for result in stream:
            results[result.frame.source].append(result)
    assert {name: len(found) for name, found in results.items()} == {str(clip): 12, "scene 1": 9, "scene 2": 9}
    for seed, frames in scenes.items():
        found = results[f"scene {seed}"]
        assert [result.index for result in found] == list(range(9))
        assert [result.seconds for result in found] == [index / 10 for index in range(9)]
        for result, frame in zip(found, frames, strict=True):
            assert result.image is frame
            expected = detector(frame)
            assert len(expected) > 10
            assert result.detections.labels.tolist() == expected.labels.tolist()
            # A batch may be added up in another order.
            assert np.abs(result.detections.boxes - expected.boxes).max() < 1e-3
            assert 0 < result.detecting_s <= result.lag_s


def test_equal_names_are_numbered(sizes, detector):
    with MultiStream(detector, [pictures(2), pictures(3), pictures(4, "frames 2"), pictures(5)]) as stream:
        seen, error, said = taken_from(stream)
    assert {name: len(found) for name, found in seen.items()} == {
        "frames": 2,
        "frames 2": 3,
        "frames 2 2": 4,
        "frames 3": 5,
    }
    assert (error, said) == (None, [])
    assert sum(sizes) == 14


def test_statistics_are_of_each_source(detector):
    with MultiStream(detector, [pictures(30), pictures(10, "live", live=True)]) as stream:
        seen, _, _ = taken_from(stream)
        told = stream.statistics
    assert list(told) == ["frames", "live"]
    assert (told["frames"].read, told["frames"].dropped, told["frames"].given) == (30, 0, 30)
    live = told["live"]
    assert live.read == 10 == live.dropped + live.given
    assert live.given == len(seen["live"])
    assert seen["live"][-1] == 9, "the last frame has nothing newer"
    for one in told.values():
        assert list(one.stage_ms) == ["reading", "preprocess", "network", "decode", "soft_nms", "consumer"]
        assert 0 < one.lag_ms <= one.worst_lag_ms
        assert one.fps > 0
    assert stream.statistics == told, "the clocks have stopped"


@made_up
@pytest.mark.parametrize(("policy", "dropped"), [("every", False), ("newest", True)])
def test_a_policy_is_for_all_sources(detector, policy, dropped):
    with MultiStream(detector, [pictures(40), pictures(40, "live", live=True)], policy=policy, batch=1) as stream:
        taken_from(stream)
    assert [one.dropped > 0 for one in stream.statistics.values()] == [dropped, dropped]

"""``cornernet-bench stream``: what its figures come to, and what is a failure, on made-up ones."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from cases.video_clips import decoded, moving_shapes, write_clip

from cornernet_bench.measuring.intervals import Ratio
from cornernet_bench.measuring.timing import summarise
from cornernet_bench.stream.clip import FirstFrames, Repeated, draw_clip, first_frames, passing
from cornernet_bench.stream.live import Clocked, live_failures
from cornernet_bench.stream.report import Held, Live, Soak, Sources
from cornernet_bench.stream.soak import held, soak_failures
from cornernet_bench.stream.sources import sources_failures
from cornernet_bench.stream.throughput import Cost, ideal_of, throughput_failures, throughput_of, way_of

TIMES = summarise([1.0])
WORK = SimpleNamespace(count=50, held=40, compared=100, equal=100, tolerance_px=0.0)


@pytest.mark.parametrize(
    ("stages", "cores", "expected"),
    [
        # 60 ms of work: two cores share it, four do but for the 24 ms of one thread, and one has to do it all.
        ({"reading": (4, 4), "network": (30, 0), "writing": (26, 24)}, 2, (30, "cores")),
        ({"reading": (4, 4), "network": (30, 0), "writing": (26, 24)}, 4, (24, "writing")),
        ({"reading": (4, 4), "network": (30, 0), "writing": (26, 24)}, 1, (60, "cores")),
        ({"reading": (31, 31), "network": (20, 0), "writing": (9, 9)}, 2, (31, "reading")),
        # A GPU takes its time while hardly any of the processor's passes.
        ({"reading": (4, 4), "detecting": (1, 10), "writing": (5, 5)}, 8, (10, "detecting")),
    ],
)
def test_the_ideal_is_the_cores_or_the_longest_part_of_one_thread(stages, cores, expected):
    assert ideal_of(stages, cores) == expected


def test_throughput_is_of_medians_and_ratios_are_of_rounds():
    rounds = [
        {
            "reading": Cost(wall=9, cpu=4 * slow, whole=3 * slow),
            "network": Cost(wall=99, cpu=30 * slow),
            "writing": Cost(wall=9, cpu=26 * slow, whole=20 * slow),
            "loop": Cost(wall=60 * slow, cpu=61),
            "stream": Cost(wall=40 * slow, cpu=62),
        }
        for slow in (1, 2, 4)
    ]
    found = throughput_of(rounds, WORK, 2)
    assert (found.rounds, found.frames, found.held, found.cores) == (3, 50, 40, 2)
    assert list(found.stages) == ["reading", "network", "writing"]
    assert [stage.whole_ms for stage in found.stages.values()] == [6, None, 40]
    assert found.stages["network"].cpu.p50_ms == 60
    assert found.ideal_fps == pytest.approx(1000 / 60)  # of the second round: 120 ms of work, two cores
    assert found.limit == "cores"
    assert found.stream.fps == pytest.approx(1000 / 80)
    assert found.of_ideal == Ratio(0.75, 0.75, 0.75)
    assert found.of_loop == Ratio(1.5, 1.5, 1.5)
    assert throughput_failures(found) == []
    assert throughput_failures(replace(found, equal=99)) == [
        "throughput: expected detections as without a stream in 100 frames, got 99 that are equal"
    ]


LIVE = Live(
    source_fps=60.0,
    made=10,
    read=10,
    given=4,
    dropped=6,
    in_order=True,
    fps=20.0,
    lag=TIMES,
    detecting=TIMES,
    lag_ratio=1.0,
    late=TIMES,
)


def test_live_fails_where_a_frame_is_not_accounted_for_or_comes_again():
    assert live_failures(LIVE) == []
    expected = "live: expected every frame given or dropped, got 10 of the source, 10 read, 5 given and 6 dropped"
    assert live_failures(replace(LIVE, given=5)) == [expected]
    assert len(live_failures(replace(LIVE, made=11))) == 1
    assert live_failures(replace(LIVE, in_order=False)) == [
        "live: expected frames in order and each once, got one again or an older one"
    ]


SOAK = Soak(
    asked=10_000,
    frames=10_000,
    frame_size=(144, 192),
    fps=40.0,
    memory_mib=(200.0, 203.9),
    growth_percent=1.95,
    before=Held(threads=5, descriptors=9, objects=100_000),
    after=Held(threads=5, descriptors=9, objects=109_999),
)


def test_the_soak_fails_where_memory_grew_or_something_is_left():
    assert soak_failures(SOAK) == []
    assert soak_failures(replace(SOAK, growth_percent=None)) == []
    assert soak_failures(replace(SOAK, growth_percent=2.05, memory_mib=(200.0, 204.1))) == [
        "soak: expected resident memory to grow by at most 2 %, got 2.0 %: 200.0 to 204.1 MiB"
    ]
    for name, said in (
        ("threads", "expected no threads left after closing, got 6, and 5 before"),
        ("descriptors", "expected no descriptors left after closing, got 10, and 9 before"),
        ("objects", "expected no objects left after closing, got 110001, and 100000 before"),
    ):
        more = replace(SOAK.after, **{name: getattr(SOAK.before, name) + (10_001 if name == "objects" else 1)})
        assert soak_failures(replace(SOAK, after=more)) == [f"soak: {said}"]


def test_what_is_held_counts_open_files(tmp_path):
    before = held()
    with (tmp_path / "open").open("w"):
        assert held().descriptors == before.descriptors + 1
    assert held(before).descriptors == before.descriptors


SOURCES = Sources(
    rounds=2,
    count=3,
    frames_each=7,
    batch=1,
    one=way_of([Cost(2, 2)]),
    many=way_of([Cost(2, 2)]),
    some_die=way_of([Cost(2, 2)]),
    of_one=Ratio(1, 1, 1),
    of_many=Ratio(1, 1, 1),
    dying=1,
    least_share=1.0,
    given={"source 1": 14, "source 2": 14, "source 3": 14},
    given_as_some_die={"source 1": 6, "source 2": 14, "source 3": 14},
    in_order=True,
)


def test_sources_fail_where_results_are_missing_or_come_again():
    assert sources_failures(SOURCES) == []
    fewer = SOURCES.given | {"source 2": 13}
    assert sources_failures(replace(SOURCES, given=fewer)) == ["sources: expected 14 results of source 2, got 13"]
    other = SOURCES.given_as_some_die | {"source 1": 14}
    assert sources_failures(replace(SOURCES, given_as_some_die=other)) == [
        "sources: expected 6 results of source 1, got 14"
    ]
    assert len(sources_failures(replace(SOURCES, in_order=False))) == 1


# Clips.


def test_a_drawn_clip_has_the_frames_and_the_rate_that_are_asked_for(tmp_path):
    frames = decoded(draw_clip(tmp_path / "a.mp4", 7, (96, 128)))
    assert [time for time, _ in frames] == [Fraction(index, 25) for index in range(7)]
    assert {image.shape for _, image in frames} == {(96, 128, 3)}
    spread = [float(image.std()) for _, image in frames]
    assert min(spread) > 10, "there is something on it"


def test_a_scene_passes_by_without_a_jump():
    scene = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)
    first, second = passing(scene, 2, (40, 60))
    assert first.shape == (40, 60, 3)
    assert np.array_equal(first[2:, 5:], second[:-2, :-5])


def test_the_first_frames_of_a_file_are_given_and_the_file_is_closed(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(5))
    assert [frame.index for frame in first_frames(path, 3)] == [0, 1, 2]
    assert len(first_frames(path, 9)) == 5
    source = FirstFrames(path, 2)
    assert [float(frame.seconds) for frame in source] == [0, 0.04]
    source.close()


def test_a_file_is_read_again_and_again_as_one_source_with_times_that_go_on(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(4))
    frames = list(Repeated(path, 10))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.seconds for frame in frames] == [index / 25 for index in range(10)]
    for frame, index in zip(frames, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1], strict=True):
        assert np.array_equal(frame.image, frames[index].image)
    assert not np.array_equal(frames[0].image, frames[1].image)


def test_a_clock_gives_pictures_over_and_over_and_never_early():
    source = Clocked(["a", "b"], 5, 500)
    assert list(source) == ["a", "b", "a", "b", "a"]
    assert len(source.late_ms) == 5
    assert min(source.late_ms) >= 0

"""The oracle on data sets whose answers are arithmetic.

COCO averages ten thresholds of IoU, 0.5 to 0.95, so an object found with an IoU of 0.72 is worth 5 of 10.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from cases.oracle import CELL, SIDE, SPEC, ToldBackend, ideal, ignorance, told, write_set

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.oracle.analyse import EXCHANGES, analyse
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import FrameError, ModelError

HAND = 1e-6  # points; sums of exact fractions in float64
ALL = ("heat", "embed", "offset")
ANT, FAR_ANT, BEE = ([10.5, 10.5, 35.5, 35.5], 0), ([38.5, 40.5, 58.5, 60.5], 0), ([40.5, 5.5, 60.5, 25.5], 1)
TRUTH = {1: [ANT, FAR_ANT, BEE], 2: [ANT], 3: [BEE], 4: []}


def exchanges(folder, maps, truth=TRUTH):
    report = analyse(told(maps), *write_set(folder, truth))
    return {kinds: metrics["ap"] for kinds, metrics in report.exchanges.items()}


def perfect(truth=TRUTH):
    return {number: ideal(objects) for number, objects in truth.items()}


def changed(**change):
    return {
        number: replace(maps, **{name: edit(getattr(maps, name)) for name, edit in change.items()})
        for number, maps in perfect().items()
    }


# Arithmetic.


def test_every_kind_is_exchanged_alone_and_with_each_other():
    assert [set(kinds) for kinds in EXCHANGES] == [
        set(),
        *({kind} for kind in ALL),
        *({"heat", "embed"}, {"heat", "offset"}, {"embed", "offset"}),
        set(ALL),
    ]


def test_a_perfect_network_has_nothing_to_gain(tmp_path):
    found = exchanges(tmp_path, perfect())
    assert found == {kinds: pytest.approx(100, abs=HAND) for kinds in EXCHANGES}


def test_a_network_that_knows_nothing_gains_what_the_true_maps_bring(tmp_path):
    # True heat finds the corners; equal embeddings pair them all within a class, the true pairs first, for the false
    # one is lowered by those it overlaps. Offsets of 0 where 0.5 is true move a box of 20 or 25 cells by half a cell
    # each way: an IoU of at least (19.5 / 20.5)^2 = 0.905, which counts at nine of ten thresholds.
    found = exchanges(tmp_path, dict.fromkeys(TRUTH, ignorance()))
    assert found == {
        kinds: pytest.approx(0 if "heat" not in kinds else 100 if "offset" in kinds else 90, abs=HAND)
        for kinds in EXCHANGES
    }


def test_offsets_that_are_off_cost_the_thresholds_that_arithmetic_says(tmp_path):
    def inwards(offset):
        return offset + np.array([[[0.28]], [[0]]]) * 25  # of the ants' 25 cells in x

    truth = {1: [ANT], 2: [ANT]}
    maps = {
        number: replace(ideal(objects), tl_offset=inwards(ideal(objects).tl_offset))
        for number, objects in truth.items()
    }
    report = analyse(told(maps), *write_set(tmp_path, truth))
    for kinds, metrics in report.exchanges.items():
        expected = (100, 100, 100) if "offset" in kinds else (50, 100, 0)  # an IoU of 0.72
        found = tuple(metrics[name] for name in ("ap", "ap50", "ap75"))
        assert found == pytest.approx(expected, abs=HAND), kinds


def test_embeddings_that_pair_nothing_cost_everything_until_they_are_true(tmp_path):
    found = exchanges(tmp_path, changed(br_embed=lambda embed: embed + 1))
    assert found == {kinds: pytest.approx(100 if "embed" in kinds else 0, abs=HAND) for kinds in EXCHANGES}


def test_corners_of_two_objects_that_pair_outrank_a_fainter_object_until_embeddings_are_true(tmp_path):
    # Equal embeddings pair the ants' outer corners. That false box is as sure as the first ant and the second one is
    # fainter: right, wrong, right.
    maps = changed(tl_embed=np.zeros_like, br_embed=np.zeros_like)
    first = replace(maps[1], tl_heat=maps[1].tl_heat.copy())
    first.tl_heat[0, 36:, 34:] -= 13.5  # a score of 0.59, above that of pairs with the ground
    found = exchanges(tmp_path, {1: first}, {1: [ANT, FAR_ANT]})
    assert found[()] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=HAND)
    assert found[("embed",)] == found[("heat",)] == pytest.approx(100, abs=HAND)


def test_a_corner_seen_in_the_next_cell_is_brought_as_near_as_an_offset_can(tmp_path):
    box = ([10.5, 10.5, 15.5, 20.5], 0)
    maps = ideal([box])
    left = {name: np.roll(getattr(maps, name), -1, axis=2) for name in ("tl_heat", "tl_embed", "tl_offset")}
    maps = replace(maps, **left)
    found = exchanges(tmp_path, {1: maps}, {1: [box]})
    assert found[()] == pytest.approx(70, abs=HAND)  # one cell too wide: an IoU of 5 / 6
    assert found[("offset",)] == pytest.approx(90, abs=HAND)  # half a cell too wide: 5 / 5.5
    assert found[("heat",)] == pytest.approx(90, abs=HAND)  # the offset of the true cell is now 0
    assert found[ALL] == pytest.approx(100, abs=HAND)


def test_true_maps_of_corners_in_one_cell_give_the_smaller_object_exactly(tmp_path):
    # The larger takes the offset of the smaller, 0.8 cells inwards of its 4 in x and y: an IoU of 0.64, three of ten.
    small, large = ([10.9, 10.9, 13.9, 13.9], 1), ([10.1, 10.1, 14.1, 14.1], 0)
    truth = {1: [small, large]}
    report = analyse(told(perfect(truth)), *write_set(tmp_path, truth))
    assert report.shared == report.objects == 2
    assert report.exchanges[ALL]["ap"] == pytest.approx((100 + 30) / 2, abs=HAND)


# What counts.


def test_the_model_as_it_is_has_the_numbers_of_the_accuracy_command(tmp_path):
    rng = np.random.default_rng(3)
    maps = changed(
        tl_heat=lambda heat: heat + rng.normal(0, 6, heat.shape),
        tl_embed=lambda embed: embed + rng.normal(0, 0.3, embed.shape),
        br_offset=lambda offset: offset + rng.normal(0, 2, offset.shape),
    )
    paths = write_set(tmp_path, TRUTH)
    report, accuracy = analyse(told(maps), *paths), evaluate(told(maps), *paths)
    assert 5 < accuracy.metrics["ap"] < 95
    assert report.exchanges[()] == {
        name: pytest.approx(accuracy.metrics[name], nan_ok=True, abs=HAND) for name in report.exchanges[()]
    }
    assert (report.pictures, report.objects) == (accuracy.pictures, accuracy.objects)


def test_the_network_runs_once_a_picture(tmp_path):
    detector = told(perfect())
    analyse(detector, *write_set(tmp_path, TRUTH))
    assert detector.backend.calls == len(TRUTH)


def test_crowds_are_no_truth(tmp_path):
    report = analyse(told(perfect()), *write_set(tmp_path, TRUTH, iscrowd=1))
    assert report.objects == 0
    assert all(np.isnan(metrics["ap"]) for metrics in report.exchanges.values())


def test_objects_of_classes_that_the_model_does_not_know_are_never_found(tmp_path):
    paths = write_set(tmp_path, {1: [ANT, BEE]})
    maps = ideal([ANT])
    detector = Detector(
        ToldBackend({1: replace(maps, tl_heat=maps.tl_heat[:1], br_heat=maps.br_heat[:1])}),
        replace(SPEC, class_names=("ant",)),
    )
    report = analyse(detector, *paths)
    assert [metrics["ap"] for metrics in report.exchanges.values()] == pytest.approx([50] * 8, abs=HAND)


def test_a_model_in_native_geometry_reaches_100_with_true_maps(tmp_path):
    spec = replace(SPEC, dynamic=True, geometry="native", largest_size=(511, 511), input_size=(255, 255))
    frames = {1: np.full((200, 231, 3), 1, np.uint8)}  # centred in 223x255
    empty = ignorance()
    cut = {name: getattr(empty, name)[:, :56] for name in empty.__dataclass_fields__}
    detector = Detector(ToldBackend({1: replace(empty, **cut)}), spec)
    report = analyse(detector, *write_set(tmp_path, {1: [([5.5, 6.5, 30.5, 40.5], 0)]}, frames))
    assert report.exchanges[ALL]["ap"] == pytest.approx(100, abs=HAND)
    assert report.exchanges[()]["ap"] == 0


def test_what_looks_wrong_with_the_set_is_noted(tmp_path):
    report = analyse(told(perfect()), *write_set(tmp_path, {1: [ANT, ANT]}))
    assert [note.split(":")[0] for note in report.notes] == ["1 annotations that repeat another"]


# Interrupts and bad input.


def interrupted_after(count):
    def track(items, what):
        for number, item in enumerate(items):
            if what == "looking" and number == count:
                raise KeyboardInterrupt
            yield item

    return track


def test_what_was_seen_before_an_interrupt_is_judged_alone_and_marked(tmp_path):
    maps = perfect() | {3: ignorance()}
    report = analyse(told(maps), *write_set(tmp_path, TRUTH), track=interrupted_after(2))
    assert (report.pictures, report.listed, report.objects, report.complete) == (2, 4, 4, False)
    assert report.exchanges[()]["ap"] == pytest.approx(100, abs=HAND), "the third picture would have cost a bee"


def test_an_interrupt_within_a_picture_leaves_that_one_out(tmp_path):
    detector = told(perfect())
    run, detector.backend = detector.backend, None

    class Interrupted:
        name, max_batch = "told", 1

        def __call__(self, images):
            if run.calls == 3:
                raise KeyboardInterrupt
            return run(images)

    detector.backend = Interrupted()
    report = analyse(detector, *write_set(tmp_path, TRUTH))
    assert (report.pictures, report.complete) == (3, False)


def test_an_interrupt_before_the_first_picture_is_raised(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        analyse(told(perfect()), *write_set(tmp_path, TRUTH), track=interrupted_after(0))


def test_a_picture_that_is_missing_is_named_before_any_is_looked_at(tmp_path):
    annotations, images = write_set(tmp_path, TRUTH)
    (images / "3.png").unlink()
    detector = told(perfect())
    with pytest.raises(FrameError, match=r"1 of the 4 pictures of annotations\.json are not there: 3\.png"):
        analyse(detector, annotations, images)
    assert detector.backend.calls == 0


def test_a_class_that_is_no_category_is_named(tmp_path):
    annotations, images = write_set(tmp_path, TRUTH)
    content = json.loads(annotations.read_text())
    content["categories"][1]["name"] = "wasp"
    annotations.write_text(json.dumps(content))
    with pytest.raises(FrameError, match=r"no category is named bee; it has \['wasp', 'ant'\]"):
        analyse(told(perfect()), annotations, images)


def test_a_reference_of_other_classes_is_refused(tmp_path):
    other = Detector(ToldBackend(perfect()), replace(SPEC, class_names=("bee", "ant")))
    with pytest.raises(ModelError, match=r"same classes \['ant', 'bee'\], got \['bee', 'ant'\]"):
        analyse(told(perfect()), *write_set(tmp_path, TRUTH), other)


def test_a_reference_that_sees_pictures_at_another_size_is_refused(tmp_path):
    other = Detector(ToldBackend(perfect()), replace(SPEC, input_size=(223, 255)))
    with pytest.raises(ModelError, match=r"\(255x255, maps 64x64\), got 223x255, maps 64x64; export both"):
        analyse(told(perfect()), *write_set(tmp_path, TRUTH), other)


def test_the_side_of_a_cell_is_what_these_tests_take_it_for():
    assert pytest.approx(3.984375) == CELL == SIDE / 64

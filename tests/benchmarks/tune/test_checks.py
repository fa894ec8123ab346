"""``cornernet-bench tune``: what counts as a gain, what is refused before the work, and what is doubted after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC

from cornernet_bench.cli import main
from cornernet_bench.tune.checks import check_data, check_timing, doubts
from cornernet_bench.tune.request import TuneRequest
from cornernet_bench.tune.search import UNITY, Mix, Ratio, ratio_of, search
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, FrameError

REQUEST = TuneRequest(Path("c"), Path("a"), Path("i"), Path("o"))


# What is a gain.


def test_a_ratio_is_the_median_of_the_rounds_with_its_interval():
    ratio = ratio_of(np.arange(1.0, 11) * 3, np.full(10, 3.0))
    # Of ten values the second and the ninth: the median is outside of them in 22 of 1024 cases.
    assert (ratio.median, ratio.low, ratio.high) == (5.5, 2, 9)
    assert ratio.spread_percent == pytest.approx(100 * (9.1 - 1.9) / 5.5)
    assert str(ratio) == "5.50 (2.00 to 9.00)"


def test_the_interval_of_a_median_holds_the_true_one_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    for rounds in (10, 30, 101):
        found = [ratio_of(rng.lognormal(0, 1, rounds), np.ones(rounds)) for _ in range(2000)]
        assert 0.93 < np.mean([ratio.low <= 1 <= ratio.high for ratio in found]) < 0.99


def mixes(ratio_of_stem):
    """Measure by arithmetic: what the stem in float gives, by the number of the call."""
    calls = []

    def measure(float_groups, with_ap):
        calls.append(float_groups)
        ratio = ratio_of_stem(calls.count(("stem",))) if float_groups == ("stem",) else Ratio(0.9, 0.9, 0.9, 0.0)
        return Mix(float_groups, Ratio(2.0, 2.0, 2.0, 0.0), ratio if float_groups else UNITY, 40.0 if with_ap else None)

    return measure


def test_a_group_whose_gain_is_within_the_noise_goes_to_int8():
    outcome = search(("stem", "heat"), mixes(lambda _: Ratio(1.5, 0.99, 3.0, 80.0)), 39)
    assert outcome.best.float_groups == ()
    outcome = search(("stem", "heat"), mixes(lambda _: Ratio(1.5, 1.01, 3.0, 80.0)), 39)
    assert outcome.best.float_groups == ("stem",)


def test_the_reason_tells_the_timing_that_decided():
    # The third one, beside the AP, is another.
    outcome = search(("stem", "heat"), mixes(lambda call: Ratio(1.1, 1.05, 1.2, 5.0) if call < 3 else UNITY), 39)
    assert outcome.reasons["stem"].endswith("with it in float the network is 1.10 (1.05 to 1.20) times as fast")


def test_a_mix_that_is_faster_than_float32_only_by_noise_is_not_met():
    def measure(float_groups, with_ap):
        return Mix(float_groups, Ratio(3.0, 0.9, 8.0, 200.0), UNITY, 40.0 if with_ap else None)

    assert not search(("stem", "heat"), measure, 39).met


# What is refused before the work.


@pytest.fixture
def data_set(tmp_path):
    """Annotations of one picture with one object, and what makes others of them."""
    names = enumerate((*SMALL_SPEC.class_names, "zebra"), 1)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 50}],
        "categories": [{"id": number, "name": name} for number, name in names],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}],
    }
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 60, 3), np.uint8))

    def request(checkpoint, **changed):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content | changed))
        return replace(REQUEST, checkpoint=checkpoint, annotations=path, images=tmp_path)

    return content, request


def test_few_pictures_are_told(data_set, checkpoint_path):
    with pytest.warns(
        CornerNetWarning, match=r"^AP of 1 picture only: .* the budget of 0.5 points may be within its noise"
    ):
        check_data(data_set[1](checkpoint_path))


def test_a_class_that_is_no_category_is_refused(data_set, checkpoint_path):
    content, request = data_set
    rows = [row | {"name": f"{row['name']}s"} for row in content["categories"]]
    with pytest.raises(FrameError, match=f"no category is named {SMALL_SPEC.class_names[0]}"):
        check_data(request(checkpoint_path, categories=rows))


def test_a_picture_that_is_not_there_is_refused(data_set, checkpoint_path):
    content, request = data_set
    with pytest.raises(FrameError, match=r"are not there: b\.png"):
        check_data(request(checkpoint_path, images=[content["images"][0] | {"file_name": "b.png"}]))


def test_objects_of_other_categories_only_are_refused(data_set, checkpoint_path):
    content, request = data_set
    rows = [content["annotations"][0] | {"category_id": len(content["categories"])}]
    with pytest.raises(FrameError, match=f"there is no object of {SMALL_SPEC.class_names[0]}, "):
        check_data(request(checkpoint_path, annotations=rows))


def test_times_that_would_say_nothing_are_refused():
    for threads in (0, 2):
        with pytest.raises(CornerNetError, match=r"^--cpu-time adds up all threads: add --threads 1$"):
            check_timing(replace(REQUEST, threads=threads, cpu_time=True))
    with pytest.raises(CornerNetError, match=r"^--rounds: expected at least 10 .*, got 9$"):
        check_timing(replace(REQUEST, rounds=9))
    check_timing(replace(REQUEST, rounds=10, threads=1, cpu_time=True))


@pytest.mark.parametrize("wrong", [["--rounds", "9"], ["--threads", "0"]])
def test_too_few_are_wrong_usage(wrong):
    with pytest.raises(SystemExit) as caught:
        main(["tune", "c", "--annotations", "a", "--images", "i", "--output", "o", *wrong])
    assert caught.value.code == 2


# What is doubted after it.


def test_a_busy_machine_and_ratios_that_spread_are_told():
    steady, loose = (Mix((), Ratio(2.0, 1.9, 2.1, spread), UNITY, 40.0) for spread in (20.0, 35.0))
    assert doubts(0.0, steady, REQUEST) == ()
    (line,) = doubts(1e6, steady, REQUEST)
    assert line.startswith("1000000.0 processes ran in the minute before")
    assert line.endswith("on a machine that others use too, --threads 1 --cpu-time tells which is faster")
    (line,) = doubts(0.0, loose, REQUEST)
    assert line.startswith("how many times as fast the best mix is spreads by 35 % over the rounds: ")
    assert "--threads 1 --cpu-time" in line
    by_cpu = replace(REQUEST, threads=1, cpu_time=True)
    assert "--cpu-time" not in " ".join((*doubts(1e6, loose, by_cpu), *doubts(0.0, loose, by_cpu)))

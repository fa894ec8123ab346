"""``cornernet-bench compare`` with the published pipeline among the contestants, and with several libraries."""

from __future__ import annotations

import json

import pytest
from cases.compare import run
from cases.report_schema import problems
from places import SHIPPED

pytestmark = [pytest.mark.usefixtures("speeds_are_reported"), pytest.mark.slow]


@pytest.fixture(scope="module")
def published(folder):
    """A comparison with the published pipeline of the same weights, and of it with flip at another size."""
    contestants = f"{SHIPPED}@published", folder / "tiny", f"{SHIPPED}@published:flip:size=127x255"
    assert run(folder, *contestants, "--json", folder / "published.json") == 0
    return json.loads((folder / "published.json").read_text())


def test_the_published_pipeline_takes_part_with_its_own_steps(published):
    assert problems(published, "compare") == []
    first, tiny, other = published["results"]
    assert [one["opened"]["backend"] for one in (first, tiny, other)] == ["published", "onnxruntime", "published"]
    steps = ["preprocess", "upload", "network", "decode", "download", "soft_nms", "other"]
    assert list(first["latency"]["stages"]) == list(other["latency"]["stages"]) == steps
    assert (other["opened"]["flip"], other["opened"]["input_sizes"]) == (True, [[127, 255]])
    assert first["accuracy"]["metrics"]["ap"] == pytest.approx(tiny["accuracy"]["metrics"]["ap"], abs=3)
    against = tiny["against"]
    assert (against["maps"], against["cause"]) == (None, None)  # borders lie up to a pixel elsewhere
    assert against["agreement"]["percent"] > 80


def test_how_many_times_as_fast_each_stage_is_stands_in_the_same_report(published):
    first, tiny, _ = published["results"]
    speeds = tiny["against"]["stage_speeds"]
    assert list(speeds) == ["preprocess", "network", "decode", "soft_nms"]
    for name, speed in speeds.items():
        assert speed["low"] <= speed["median"] <= speed["high"]
        # Of two rounds the median of the ratios lies between the two of them, as the ratio of the means does nearly.
        ratio = first["latency"]["stages"][name]["mean_ms"] / tiny["latency"]["stages"][name]["mean_ms"]
        assert ratio == pytest.approx(speed["median"], rel=0.9)


def test_the_published_pipeline_looks_at_one_scale(folder, capfd):
    assert run(folder, f"{SHIPPED}@published:scales=0.5,1", folder / "tiny") == 1
    assert f"{SHIPPED}: published looks at one scale: leave scales away" in capfd.readouterr().err


def test_the_threads_of_every_library_are_told(folder, tmp_path):
    pytest.importorskip("openvino")
    tiny = folder / "tiny"
    assert run(folder, tiny, f"{tiny}@openvino", "--threads", 1, "--json", tmp_path / "a.json") == 0
    threads = json.loads((tmp_path / "a.json").read_text())["machine"]["threads"]
    assert (threads["onnxruntime"], threads["openvino"]) == (1, 1)

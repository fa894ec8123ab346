"""Models of the same weights in fewer bits: what their precision does is not laid at a fault."""

from __future__ import annotations

import pytest
from cases.faulty_models import shipped_with_scenes
from places import SHIPPED

from cornernet_bench.compare.compare import compare
from cornernet_bench.compare.contestant import parse_contestant
from cornernet_bench.compare.expected import PRECISIONS
from cornernet_bench.compare.request import CompareRequest
from cornernet_bench.measuring.intervals import Difference
from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_runtime.machine import has_bfloat16

SCENES = 8
BFLOAT16 = "@openvino-bf16"


@pytest.fixture(scope="module")
def against(shipped_path, tmp_path_factory):
    """How the shipped model in INT8 and, if the CPU can, in bfloat16 differs from it as it is, by what was typed."""
    folder = shipped_with_scenes(shipped_path, tmp_path_factory.mktemp("precision"), SCENES)
    pictures = (str(folder / "scenes" / "images"),)
    with pytest.warns(match="calibrating on 8 pictures only"):
        export_bundle(ExportRequest(SHIPPED, folder / "int8", precision="int8", pictures=pictures))
    models = ["int8", "int8:flip", *(f"{name}{BFLOAT16}" for name in ("tiny", "int8") if has_bfloat16())]
    report = compare(
        CompareRequest(
            tuple(parse_contestant(str(folder / model)) for model in ("tiny", *models)),
            folder / "scenes" / "annotations.json",
            folder / "scenes" / "images",
            iterations=2,
            warm_up=1,
        )
    )
    assert report.failures == ()
    return {result.contestant.name: result.against for result in report.results[1:]}


@pytest.mark.slow
def test_what_int8_does_is_said_to_be_its_doing(against):
    int8 = against["int8"]
    worst = max(int8.maps.errors.values())
    assert 1e-3 < worst < int8.maps.tolerance == 0.3
    assert int8.agreement.percent < 98
    assert int8.cause is None
    assert int8.findings[0].startswith(
        f"maps are up to {worst:.2g} of the largest value off, as expected of int8 up to"
    )
    assert not any("decode" in line or "weights" in line for line in int8.findings)


@pytest.mark.slow
def test_where_a_mirror_image_is_looked_at_too_that_is_the_reason(against):
    assert against["int8:flip"].cause is None
    assert against["int8:flip"].findings == (
        "looks in another way than the first (flip): fewer detections agree for it",
    )


@pytest.mark.slow
@pytest.mark.skipif(not has_bfloat16(), reason="this CPU does not compute in bfloat16")
@pytest.mark.parametrize(("model", "tolerance"), [("tiny", 0.05), ("int8", 0.3)])
def test_bfloat16_is_allowed_its_errors_and_those_of_the_model(against, model, tolerance):
    found = against[f"{model}{BFLOAT16}"]
    assert found.maps.tolerance == tolerance
    assert 1e-3 < max(found.maps.errors.values()) < tolerance
    assert found.cause is None
    assert not any("decode" in line or "weights" in line for line in found.findings)


@pytest.mark.parametrize(
    ("precision", "difference", "exceeded"),
    [
        ("int8", Difference(-0.4, -0.6, -0.2), False),
        ("int8", Difference(-0.8, -1.0, -0.6), True),
        ("int8", Difference(-0.8, -2.0, 0.4), False),  # noise
        ("fp16", Difference(-0.4, -0.6, -0.2), True),
        ("fp32", None, False),  # not measured
    ],
)
def test_a_precision_may_cost_so_much_ap_and_no_more(precision, difference, exceeded):
    assert PRECISIONS[precision].exceeded(difference) is exceeded

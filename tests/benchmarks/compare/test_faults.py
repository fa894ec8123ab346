"""Faults planted in the shipped model, which a comparison with it must lay at what they were planted in."""

from __future__ import annotations

import onnx
import pytest
from cases.faulty_models import FAULTS, perturb, shipped_with_scenes, write_faulty_models

from cornernet_bench.compare import findings as compare_findings
from cornernet_bench.compare.compare import compare
from cornernet_bench.compare.contestant import parse_contestant
from cornernet_bench.compare.expected import Expected
from cornernet_bench.compare.request import CompareRequest

pytestmark = pytest.mark.slow  # each builds, quantises or measures models

SCENES = 8


@pytest.fixture(scope="module")
def results(shipped_path, tmp_path_factory):
    """What a comparison says of each fault, by its name; "none" is the model once more."""
    folder = shipped_with_scenes(shipped_path, tmp_path_factory.mktemp("faults"), SCENES)
    models = {"none": folder / "tiny", **write_faulty_models(folder / "tiny" / "model.onnx", folder)}
    report = compare(
        CompareRequest(
            tuple(parse_contestant(str(path)) for path in (folder / "tiny" / "model.onnx", *models.values())),
            folder / "scenes" / "annotations.json",
            folder / "scenes" / "images",
            iterations=2,
            warm_up=1,
        )
    )
    assert report.failures == ()
    return dict(zip(models, report.results[1:], strict=True))


@pytest.mark.parametrize(
    ("fault", "cause", "differing"),
    [
        ("weights", "tl_offset", {"tl_offset"}),
        ("stem", None, {"tl_heat", "br_heat", "tl_embed", "br_embed", "tl_offset", "br_offset"}),
        ("exchanged", "corners_embed", {"tl_embed", "br_embed"}),
        ("classes", "classes", {"tl_heat", "br_heat"}),
        ("half", "embed", {"tl_embed", "br_embed"}),
        ("channels", "input_channels", {"tl_heat", "br_heat", "tl_embed", "br_embed", "tl_offset", "br_offset"}),
        ("suppression", "after_network", set()),
    ],
)
def test_a_fault_is_laid_at_its_head_or_stage(results, fault, cause, differing):
    against = results[fault].against
    assert against.cause == cause, against.findings
    assert set(against.maps.differing) == differing
    assert against.maps.pictures == SCENES
    assert against.findings


def test_every_fault_is_tried(results):
    assert set(results) == {"none", *FAULTS}


def test_the_same_model_differs_in_nothing(results):
    against = results["none"].against
    assert (against.cause, against.findings) == (None, ())
    assert (against.ap.points, against.ap.low, against.ap.high) == (0, 0, 0)
    assert against.agreement.percent == 100
    assert against.agreement.extra == 0
    assert set(against.maps.errors.values()) == {0}


def test_settings_that_differ_are_named(results):
    assert results["channels"].against.findings[0] == "normalisation.channel_order is rgb, and bgr of the first"
    assert results["suppression"].against.findings[:2] == (
        "nms.method is hard, and gaussian of the first",
        "nms.iou_threshold is 0.1, and 0.5 of the first",
    )
    assert "decode or soft-NMS" in results["suppression"].against.findings[-1]


def test_a_loss_of_ap_is_looked_for_by_the_oracle_too(results):
    for fault in ("exchanged", "classes"):
        against = results[fault].against
        assert against.ap.high < -5
        assert against.findings[-1].startswith(f"the oracle, one view of {SCENES} pictures: ")
        assert "are exchanged" in against.findings[-1] or "another order" in against.findings[-1]
    assert not any("oracle" in line for line in results["suppression"].against.findings)


def test_a_loss_of_ap_within_the_tolerance_of_the_maps_is_laid_at_its_head(shipped_path, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_findings, "expected", lambda *_: Expected("int8", 10.0, 0.5))
    folder = shipped_with_scenes(shipped_path, tmp_path, SCENES)
    source = folder / "tiny" / "model.onnx"
    model = onnx.load(source)
    perturb("tl_embed", 0.5)(model)
    onnx.save(model, folder / "off.onnx")
    scenes = folder / "scenes"
    models = tuple(parse_contestant(str(path)) for path in (source, folder / "off.onnx"))
    report = compare(CompareRequest(models, scenes / "annotations.json", scenes / "images", iterations=1, warm_up=1))
    against = report.results[1].against
    assert against.maps.differing == ()
    assert against.ap.high < -1
    assert against.cause == "tl_embed"
    assert against.findings[0].endswith("but AP falls by more than the 0.5 that it may cost")
    assert "the fault is in tl_embed" in against.findings[-1]

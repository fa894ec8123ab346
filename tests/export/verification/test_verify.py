"""Verification: its figures against figures worked out by hand, and an export that is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_export import bundle_export
from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.cli import main
from cornernet_export.torch_backend.cpu import TorchBackend, open_checkpoint
from cornernet_export.verification.matching import FP32, SCORE, box_iou, compare_detections
from cornernet_export.verification.verify import compare_outputs, sample_picture, verify
from cornernet_runtime.bundle.manifest import DetectionCheck, OutputCheck, Verification
from cornernet_runtime.detections import Detections
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import VerificationError
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

NAMES = ("ant", "bee", "cat")


def maps(**values):
    """Return maps of a batch of one, all ones but for the values given, which fill the first cells of their map."""
    planes = {}
    for name in OUTPUT_NAMES:
        plane = np.ones((1, 2, 2, 3), np.float32)
        given = np.asarray(values.get(name, []), np.float32)
        plane.flat[: given.size] = given
        planes[name] = plane
    return CornerMaps(**planes)


def errors(expected, found, tolerance=FP32.output):
    return {check.output: check.error for check in compare_outputs(expected, found, "a -> b", "noise", tolerance)}


# Output tensors.


def test_equal_outputs_have_no_error():
    assert errors(maps(), maps()) == dict.fromkeys(OUTPUT_NAMES, 0.0)


def test_error_is_the_largest_difference_over_the_largest_value_expected():
    expected = maps(tl_heat=[-8, 3], br_embed=[0.5])
    found = maps(tl_heat=[-8.5, 3.25], br_embed=[0.75])
    # 0.5 of 8, and 0.25 of the ones around the cell.
    assert errors(expected, found) == {**dict.fromkeys(OUTPUT_NAMES, 0.0), "tl_heat": 0.0625, "br_embed": 0.25}


def test_error_is_relative_to_the_reference_and_not_to_what_was_found():
    assert errors(maps(), maps(tl_offset=[5]))["tl_offset"] == 4.0
    assert errors(maps(tl_offset=[5]), maps())["tl_offset"] == pytest.approx(0.8)


def test_output_of_zeros_allows_no_error():
    zeros, little = maps(br_heat=np.zeros(12)), maps(br_heat=np.full(12, 1e-6))
    assert errors(zeros, zeros)["br_heat"] == 0.0
    (check,) = (check for check in compare_outputs(zeros, little, "a -> b", "noise", 1e-4) if check.output == "br_heat")
    assert not check.passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["expected", "found", "both"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf - inf and inf / inf
def test_value_that_is_not_finite_fails(value, side):
    expected = maps(tl_heat=[value] if side != "found" else [])
    found = maps(tl_heat=[value] if side != "expected" else [])
    passed = {check.output: check.passed for check in compare_outputs(expected, found, "a -> b", "noise", 1e-4)}
    assert passed == {name: name != "tl_heat" for name in OUTPUT_NAMES}


def test_error_at_the_tolerance_passes_and_above_it_fails():
    checks = [OutputCheck("a -> b", "noise", "tl_heat", error, 0.5) for error in (0.5, 0.5000001, np.nan)]
    assert [check.passed for check in checks] == [True, False, False]


def test_checks_carry_stage_source_and_tolerance():
    checks = compare_outputs(maps(), maps(), "a -> b", "noise", 0.25)
    assert [check.output for check in checks] == list(OUTPUT_NAMES)
    assert {(check.stage, check.source, check.tolerance) for check in checks} == {("a -> b", "noise", 0.25)}


# Detections.


def detections(*rows):
    """Return detections of rows (score, label, x1, y1, x2, y2), best first."""
    table = np.array(sorted(rows, key=lambda row: -row[0]), np.float64).reshape(-1, 6)
    return Detections(
        table[:, 2:].astype(np.float32), table[:, 0].astype(np.float32), table[:, 1].astype(np.int64), NAMES
    )


def figures(expected, found):
    check = compare_detections(expected, found, "a -> b", "picture")
    return check.reference, check.matched, check.extra


BOX = (10, 10, 110, 110)
ONE = (0.8, 1, *BOX)


def moved(pixels):
    """Return the box of 100 by 100 moved to the right: its IoU with itself is (100 - p) / (100 + p)."""
    return (10 + pixels, 10, 110 + pixels, 110)


def test_equal_detections_all_match():
    rows = [ONE, (0.6, 1, 30, 30, 60, 60), (0.5, 2, 30, 30, 60, 60)]
    assert figures(detections(*rows), detections(*rows)) == (3, 3, 0)


def test_no_detections_on_either_side():
    check = compare_detections(detections(), detections(), "a -> b", "picture")
    assert (check.reference, check.matched, check.extra, check.passed) == (0, 0, 0, True)


def test_missed_detection():
    assert figures(detections(ONE, (0.6, 0, 30, 30, 60, 60)), detections(ONE)) == (2, 1, 0)


def test_extra_detection():
    assert figures(detections(ONE), detections(ONE, (0.6, 0, 30, 30, 60, 60))) == (1, 1, 1)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((0.8, 2, *BOX), False),
        ((0.8, 1, *moved(0.5)), True),  # IoU 0.99005
        ((0.8, 1, *moved(0.51)), False),  # IoU 0.98985
        ((0.8005, 1, *BOX), True),
        ((0.7995, 1, *BOX), True),
        ((0.8015, 1, *BOX), False),
        ((0.7985, 1, *BOX), False),
    ],
    ids=["class", "nearly_the_box", "another_box", "score_above", "score_below", "far_above", "far_below"],
)
def test_counterpart_has_the_class_nearly_the_box_and_nearly_the_score(other, same):
    assert figures(detections(ONE), detections(other)) == ((1, 1, 0) if same else (1, 0, 1))


def test_counterparts_are_used_once():
    assert figures(detections(ONE, ONE), detections(ONE)) == (2, 1, 0)
    assert figures(detections(ONE), detections(ONE, ONE)) == (1, 1, 1)


def test_order_of_equal_scores_does_not_matter():
    rows = [(0.5, 0, 30 * i, 0, 30 * i + 20, 20) for i in range(5)]
    assert figures(detections(*rows), detections(*rows[::-1])) == (5, 5, 0)


def test_empty_box_matches_itself():
    row = (0.5, 0, 20, 20, 20, 40)
    assert figures(detections(row), detections(row)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        (0.1004, 0.0996, (1, 1, 0)),  # the counterpart fell below the score that counts
        (0.0996, 0.1004, (0, 0, 0)),  # it rose above it: neither wanted nor extra
        (0.0996, 0.0996, (0, 0, 0)),
        (0.1004, 0.0985, (1, 0, 0)),
        (0.0985, 0.1020, (0, 0, 1)),
        (0.05, 0.05, (0, 0, 0)),
    ],
)
def test_scores_near_the_threshold(wanted, offered, expected):
    assert figures(detections((wanted, 1, *BOX)), detections((offered, 1, *BOX))) == expected


@pytest.mark.parametrize(
    ("reference", "matched", "extra", "passed"),
    [
        (100, 100, 0, True),
        (100, 98, 0, True),
        (100, 97, 0, False),
        (100, 100, 2, True),
        (100, 100, 3, False),
        (50, 49, 1, True),
        (49, 48, 0, False),
        (1, 0, 0, False),
        (0, 0, 1, False),
    ],
)
def test_two_in_a_hundred_may_be_missed_and_as_many_be_extra(reference, matched, extra, passed):
    assert DetectionCheck("a -> b", "picture", reference, matched, extra, 0.98).passed is passed


def test_one_failed_check_fails_the_verification():
    good, bad = (OutputCheck("a -> b", "noise", "tl_heat", error, 1e-4) for error in (0.0, 1.0))
    found, missed = (DetectionCheck("a -> b", "picture", 10, matched, 0, 0.98) for matched in (10, 5))
    assert Verification((good,), (found,)).passed
    assert not Verification((good, bad), (found,)).passed
    assert not Verification((good,), (found, missed)).passed


def test_thresholds_are_those_of_the_documents():
    assert (FP32.output, SCORE, FP32.score, FP32.matched) == (1e-4, 0.1, 1e-3, 1.0)


# Overlap.


def loop_iou(first, second):
    if tuple(first) == tuple(second):
        return 1.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / union if union > 0 else 0.0


@st.composite
def boxes(draw):
    """Draw boxes on a coarse grid, so that equal, touching and empty ones are common."""
    grid = st.integers(0, 8).map(lambda cell: cell / 2)
    rows = draw(st.lists(st.tuples(grid, grid, grid, grid), max_size=6))
    return np.array([(x1, y1, x1 + w, y1 + h) for x1, y1, w, h in rows], np.float32).reshape(-1, 4)


@settings(max_examples=200, deadline=None)
@given(boxes(), boxes())
def test_box_iou_equals_loops(first, second):
    found = box_iou(first, second)
    assert found.shape == (len(first), len(second))
    expected = [[loop_iou(a.tolist(), b.tolist()) for b in second] for a in first]
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=1e-12)


def test_box_iou_of_boxes_too_large_for_float32_areas():
    """Sides of 5000.5 pixels: the areas need more digits than float32 has."""
    first = np.array([[0, 0, 5000.5, 5000.5]], np.float32)
    second = np.array([[0, 0, 5000.5, 5000.0]], np.float32)
    assert box_iou(first, second)[0, 0] == pytest.approx(5000.0 / 5000.5, rel=1e-12)


# Whole exports.


def test_sample_picture_is_a_picture_with_things_on_it():
    picture = sample_picture()
    assert (picture.dtype.name, picture.ndim, picture.shape[2]) == ("uint8", 3, 3)
    assert picture.std() > 20  # grey levels
    assert not np.array_equal(picture[..., 0], picture[..., 2]), "the order of channels must matter"


def test_export_of_a_sound_model_passes_on_picture_and_noise(bundle_path, checkpoint_path):
    with Detector.open(bundle_path) as exported:
        verification = verify(open_checkpoint(checkpoint_path), exported, "a -> b")
    assert verification.passed
    assert [(check.source, check.output) for check in verification.outputs] == [
        (source, name) for source in ("picture", "noise") for name in OUTPUT_NAMES
    ]
    # Real arithmetic in another order: not zero, and far from the tolerance.
    assert max(check.error for check in verification.outputs) < 1e-5
    (pairs,) = verification.detections
    assert pairs.matched + pairs.near_ties == pairs.reference  # random weights give near ties
    assert pairs.matched > pairs.reference / 2 > 0
    assert pairs.extra == 0


def test_verification_sees_a_single_changed_weight(bundle_path):
    changed = small_model()
    changed.stem[0][0].weight.data[0, 0, 3, 3] += 0.5
    with Detector.open(bundle_path) as exported:
        verification = verify(Detector(TorchBackend(changed), SMALL_SPEC), exported, "a -> b")
    assert not verification.passed
    # The heat of an untrained network hardly leaves its bias, so an error weighs less beside its largest value.
    failed = {(check.source, check.output) for check in verification.outputs if not check.passed}
    assert failed >= {(source, name) for source in ("picture", "noise") for name in OUTPUT_NAMES[2:]}


def test_verification_sees_exchanged_outputs(bundle_path):
    class Exchanged(TorchBackend):
        def __call__(self, images):
            found = super().__call__(images)
            return replace(found, tl_embed=found.br_embed, br_embed=found.tl_embed)

    with Detector.open(bundle_path) as exported:
        verification = verify(Detector(Exchanged(small_model()), SMALL_SPEC), exported, "a -> b")
    failed = {check.output for check in verification.outputs if not check.passed}
    assert failed == {"tl_embed", "br_embed"}


@pytest.fixture
def perturbed(monkeypatch, bundle_path):
    """Make every export yield the small model with one weight changed."""

    def build(_model, _spec):
        exported = onnx.load(bundle_path / "model.onnx")
        (tensor,) = (item for item in exported.graph.initializer if item.name == "stem.0.0.weight")
        weights = onnx.numpy_helper.to_array(tensor).copy()
        weights[0, 0, 3, 3] += 0.5
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        return exported

    monkeypatch.setattr(bundle_export, "build_onnx", build)


@pytest.mark.usefixtures("perturbed")
def test_export_that_differs_is_refused_and_leaves_nothing(checkpoint_path, tmp_path):
    seen = []
    with pytest.raises(VerificationError, match="differs from the checkpoint by more than the tolerance"):
        export_bundle(ExportRequest(checkpoint_path, tmp_path / "bundle"), on_verified=seen.append)
    assert [verification.passed for verification in seen] == [False]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("perturbed")
def test_command_shows_what_failed_and_ends_with_status_1(checkpoint_path, tmp_path, capfd):
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    row = next(line for line in err.splitlines() if "tl_heat" in line)
    assert "FAILED" in row
    assert err.splitlines()[-1].startswith(f"error: {checkpoint_path}: the export differs")
    assert "nothing was written" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("perturbed")
def test_failed_export_keeps_the_bundle_that_was_to_be_replaced(checkpoint_path, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").write_text("kept")
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), "--force"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [(path.name, path.read_text()) for path in (tmp_path / "bundle").iterdir()] == [("old", "kept")]

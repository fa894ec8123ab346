"""The lines that ``cornernet-export`` prints of a verification."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cornernet_export.cli_report import print_verification
from cornernet_runtime.bundle.manifest import DetectionCheck, OutputCheck, Verification

STAGE = "PyTorch -> ONNX Runtime"


def printed(*detections, errors=()):
    outputs = tuple(OutputCheck(STAGE, source, "tl_heat", error, 1e-4) for source, error in errors)
    console = Console(file=io.StringIO(), width=120)
    print_verification(
        console, Verification(outputs or (OutputCheck(STAGE, "picture", "tl_heat", 1e-7, 1e-4),), detections)
    )
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((0, 0, 0), "detections on the picture: none of score 0.1 or more to compare"),
        ((3, 3, 0), "detections on the picture: 3 of 3 matched, 0 extra (100% required)  ok"),
        ((3, 2, 0), "detections on the picture: 2 of 3 matched, 0 extra (100% required)  FAILED"),
        ((0, 0, 1), "detections on the picture: 0 of 0 matched, 1 extra (100% required)  FAILED"),
        (
            (3, 2, 0, 1, 0),
            "detections on the picture: 2 of 3 matched, 1 more differ by near ties only, 0 extra (100% required)  ok",
        ),
        (
            (0, 0, 0, 0, 2),
            "detections on the picture: 0 of 0 matched, 2 more differ by near ties only, 0 extra (100% required)  ok",
        ),
    ],
)
def test_a_line_tells_how_many_detections_matched(counts, line):
    reference, matched, extra, *ties = counts
    assert printed(DetectionCheck(STAGE, "picture", reference, matched, extra, 1.0, *ties))[-1] == line


def test_an_output_has_its_error_on_each_source_and_fails_with_the_worst():
    row = next(line.split() for line in printed(errors=[("picture", 2e-6), ("2x15x31", 3e-3)]) if "tl_heat" in line)
    assert row == ["tl_heat", "2.0e-06", "3.0e-03", "1e-04", "FAILED"]


def test_an_error_that_is_no_number_is_said():
    row = next(line for line in printed(errors=[("picture", float("inf"))]) if "tl_heat" in line)
    assert "not finite" in row

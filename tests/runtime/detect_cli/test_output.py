"""What cornernet-detect writes: JSON lines, annotated pictures, the summary."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from cases.detect_cli import errors_in, names, noise, rows_of, save

from cornernet_runtime.detector import Detector
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.pictures import read_picture

NOTHING_TO_SAY = "nothing but results goes to standard output when it is not a terminal"


def test_json_lines_name_source_size_and_objects(detect, pictures, planted, tmp_path):
    status, output, _ = detect(pictures, "--json", tmp_path / "out.jsonl")
    assert (status, output) == (0, ""), NOTHING_TO_SAY
    rows = rows_of((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert [row["source"] for row in rows] == [str(pictures / name) for name in ("a.png", "b.png", "c.jpg")]
    for row in rows:
        assert list(row) == ["source", "width", "height", "detections"]
        assert (row["width"], row["height"]) == (190, 126)
        assert [found["label"] for found in row["detections"]] == ["ant", "bee"]
        for found, (_, box, score) in zip(row["detections"], planted[:2], strict=True):
            assert list(found) == ["label", "score", "box"]
            assert found["box"] == pytest.approx(box, abs=0.002)  # written with three decimals, both sides rounded
            assert found["score"] == pytest.approx(score, abs=2e-6)  # with six


def test_json_lines_hold_what_the_detector_finds(detect, bundle_path, tmp_path):
    for seed, size in enumerate([(63, 95), (300, 200), (9, 90)]):
        save(tmp_path / "in" / f"{seed}.png", noise(*size, seed))
    status, output, _ = detect(tmp_path / "in", "--json", "-", "--score", "0.05", model=bundle_path)
    assert status == 0
    with Detector.open(bundle_path) as detector:
        for row in rows_of(output):
            expected = detector(read_picture(Path(row["source"]))).above(0.05)
            assert len(expected) > 10
            assert [found["label"] for found in row["detections"]] == [name for _, _, name in expected]
            boxes = np.array([found["box"] for found in row["detections"]])
            scores = [found["score"] for found in row["detections"]]
            assert np.abs(boxes - expected.boxes).max() <= 0.0006  # half of the third decimal, and float32
            assert scores == pytest.approx(expected.scores, abs=6e-7)


@pytest.mark.parametrize(
    ("options", "views"),
    [
        (["--flip"], {"flip": True}),
        (["--scales", "0.5,1"], {"scales": (0.5, 1.0)}),
        (["--scales=0.5, 1e0,1.5"], {"scales": (0.5, 1.0, 1.5)}),
        (["--flip", "--scales", "0.75"], {"flip": True, "scales": (0.75,)}),
    ],
    ids=str,
)
def test_json_lines_hold_what_the_detector_finds_in_the_views_asked_for(detect, bundle_path, tmp_path, options, views):
    path = save(tmp_path / "in" / "a.png", noise(100, 120))
    status, output, _ = detect(path, "--json", "-", "--score", "0.05", *options, model=bundle_path)
    assert status == 0
    (row,) = rows_of(output)
    with Detector.open(bundle_path) as plain, Detector.open(bundle_path, **views) as detector:
        frame = read_picture(path)
        expected, without = detector(frame).above(0.05), plain(frame).above(0.05)
    assert len(expected) > 10
    assert expected.boxes.tolist() != without.boxes.tolist(), "the views make a difference"
    assert [found["label"] for found in row["detections"]] == [name for _, _, name in expected]
    boxes = np.array([found["box"] for found in row["detections"]])
    assert np.abs(boxes - expected.boxes).max() <= 0.0006  # half of the third decimal, and float32
    assert [found["score"] for found in row["detections"]] == pytest.approx(expected.scores, abs=6e-7)


def test_annotated_pictures_are_the_pictures_with_the_detections_drawn(detect, pictures, planted_model, tmp_path):
    status, _, _ = detect(pictures, "--output", tmp_path / "deep" / "out")
    assert status == 0
    assert names(tmp_path / "deep" / "out") == ["a.png", "b.png", "c.jpg"]
    with Detector.open(planted_model) as detector:
        for name in ("a.png", "b.png"):
            frame = read_picture(pictures / name)
            expected = draw_detections(frame, detector(frame).above(0.3))
            assert not np.array_equal(expected, frame)
            assert np.array_equal(read_picture(tmp_path / "deep" / "out" / name), expected)


def test_the_sources_stay_as_they_are(detect, pictures, tmp_path):
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    detect(pictures, "--output", tmp_path / "out", "--json", tmp_path / "out.jsonl")
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before


def test_without_output_and_json_nothing_is_written(detect, pictures, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    status, output, _ = detect(pictures)
    assert (status, output) == (0, ""), NOTHING_TO_SAY
    assert names(tmp_path / "here") == []


def test_json_goes_into_a_folder_that_is_made(detect, pictures, tmp_path):
    assert detect(pictures, "--json", tmp_path / "deep" / "er" / "out.jsonl")[0] == 0
    assert names(tmp_path / "deep" / "er") == ["out.jsonl"]


@pytest.mark.parametrize(
    ("score", "labels"),
    [
        ("0", ["ant", "bee", "cat"]),
        ("0.24", ["ant", "bee", "cat"]),
        ("0.26", ["ant", "bee"]),
        ("0.76", ["ant"]),
        ("1", []),
    ],
)
def test_score_keeps_what_reaches_it(detect, pictures, score, labels):
    status, output, errors = detect(pictures / "a.png", "--json", "-", "--score", score)
    assert status == 0
    assert [found["label"] for found in rows_of(output)[0]["detections"]] == labels
    objects = "1 object" if len(labels) == 1 else f"{len(labels)} objects"
    assert f"1 picture, {objects} of score {score} or more" in errors


def test_a_picture_without_objects_has_a_line_and_an_unchanged_copy(detect, pictures, tmp_path):
    status, output, _ = detect(pictures / "a.png", "--score", "1", "--json", "-", "--output", tmp_path / "out")
    assert status == 0
    assert rows_of(output) == [{"source": str(pictures / "a.png"), "width": 190, "height": 126, "detections": []}]
    assert np.array_equal(read_picture(tmp_path / "out" / "a.png"), read_picture(pictures / "a.png"))


def test_equal_names_from_two_folders_are_numbered(detect, tmp_path):
    for index, folder in enumerate(("one", "two", "three")):
        save(tmp_path / folder / "x.png", np.full((126, 190, 3), 40 * index, np.uint8))
    sources = [tmp_path / folder for folder in ("one", "two", "three")]
    assert detect(*sources, "--output", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["x-2.png", "x-3.png", "x.png"]
    for index, name in enumerate(("x.png", "x-2.png", "x-3.png")):
        corner = read_picture(tmp_path / "out" / name)[-1, -1]
        assert corner.tolist() == [40 * index] * 3, "no object reaches the last pixel"


def test_a_number_that_another_picture_bears_is_not_taken_twice(detect, tmp_path):
    for index, name in enumerate(("one/x.png", "two/x.png", "two/x-2.png")):
        save(tmp_path / name, np.full((126, 190, 3), 40 * index, np.uint8))
    assert detect(tmp_path / "one", tmp_path / "two" / "x.png", tmp_path / "two", "--output", tmp_path / "out")[0] == 0
    corners = sorted(int(read_picture(path)[-1, -1, 0]) for path in (tmp_path / "out").iterdir())
    assert sorted(set(corners)) == [0, 40, 80], "each source has a copy"


def test_a_picture_named_twice_is_annotated_under_its_own_name(detect, pictures, tmp_path):
    assert detect(pictures / "a.png", pictures / "a.png", "--output", tmp_path / "out")[0] == 0
    assert "a.png" in names(tmp_path / "out")


def test_a_picture_of_a_format_that_cannot_be_written_is_annotated_all_the_same(detect, tmp_path):
    save(tmp_path / "in" / "picture", noise())
    status, _, errors = detect(tmp_path / "in" / "picture", "--output", tmp_path / "out")
    assert (status, errors_in(errors)) == (0, [])
    (written,) = (tmp_path / "out").iterdir()
    assert read_picture(written).shape == (126, 190, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("drawing", [[], ["--corners"]])
def test_pictures_of_one_pixel_are_no_trouble(detect, tmp_path, size, drawing):
    save(tmp_path / "in" / "thin.png", noise(*size))
    status, output, errors = detect(tmp_path / "in", "--output", tmp_path / "out", "--json", "-", *drawing)
    assert (status, errors_in(errors)) == (0, [])
    assert (rows_of(output)[0]["height"], rows_of(output)[0]["width"]) == size
    assert names(tmp_path / "out") == ["thin.png"]


def test_names_in_any_script_pass_through(detect, tmp_path):
    save(tmp_path / "in" / "写真 é[red].png", noise())
    status, output, errors = detect(tmp_path / "in", "--json", "-", "--output", tmp_path / "out")
    assert status == 0
    assert rows_of(output)[0]["source"] == str(tmp_path / "in" / "写真 é[red].png")
    assert "写真 é[red].png" in errors, "brackets are no markup"
    assert names(tmp_path / "out") == ["写真 é[red].png"]


def test_a_name_that_is_no_utf8_passes_through(detect, tmp_path):
    (tmp_path / "in").mkdir()
    source = os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff\xe9.png")
    try:
        save(Path(source), noise())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    status, output, _ = detect(tmp_path / "in", "--json", "-", "--output", tmp_path / "out")
    assert status == 0
    assert [row["source"] for row in rows_of(output)] == [source]
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"\xff\xe9.png"]  # noqa: PTH208 - names as bytes


def test_the_summary_counts_objects_by_class_and_names_what_was_written(detect, pictures, tmp_path):
    _, _, errors = detect(pictures, "--output", tmp_path / "out", "--json", tmp_path / "out.jsonl")
    (row,) = (line for line in errors.splitlines() if "b.png" in line)
    assert row.split() == ["b.png", "190x126", "1", "ant,", "1", "bee", "1.00"]
    assert "3 pictures, 6 objects of score 0.3 or more; milliseconds a picture: reading " in errors
    assert f"wrote {tmp_path / 'out'}\n" in errors
    assert f"wrote {tmp_path / 'out.jsonl'}\n" in errors


def test_a_summary_of_many_pictures_is_cut_and_the_rest_counted(detect, tmp_path):
    for index in range(23):
        save(tmp_path / "in" / f"{index:02}.png", noise(8, 8))
    _, output, errors = detect(tmp_path / "in", "--json", "-")
    assert len(rows_of(output)) == 23
    assert "19.png" in errors
    assert "20.png" not in errors
    assert "... and 3 more" in errors

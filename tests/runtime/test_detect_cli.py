"""The command as a user runs it: what it writes, what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC
from places import ROOT

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_runtime.cli.detect import main
from cornernet_runtime.detect import heat_on_frame
from cornernet_runtime.detector import Detector
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.geometry import fit, place
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.spec import spec_to_text

NOTHING_TO_SAY = "nothing but results goes to standard output when it is not a terminal"


def noise(height=126, width=190, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix or ".png", picture)
    assert done
    path.write_bytes(content.tobytes())
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures."""
    folder = tmp_path / "pictures"
    for name, seed in (("a.png", 1), ("b.png", 2), ("c.jpg", 3)):
        save(folder / name, noise(seed=seed))
    return folder


@pytest.fixture
def detect(planted_model, capsys):
    """Return a function that runs the command in this process: arguments in, (status, output, errors) out."""

    def run(*arguments, model=planted_model):
        status = main([str(model), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", *map(str, arguments)]
    return subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows_of(text):
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def errors_in(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


# What is written.


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


def test_corners_draws_both_heat_maps_and_a_legend(detect, pictures, tmp_path):
    assert detect(pictures / "a.png", "--corners", "--output", tmp_path / "corners")[0] == 0
    assert detect(pictures / "a.png", "--output", tmp_path / "boxes")[0] == 0
    picture, boxes = (read_picture(tmp_path / name / "a.png") for name in ("corners", "boxes"))
    # The least whole zoom that makes the longer side 640 pixels is 4; the legend stands below.
    assert picture.shape[1] == 4 * 190
    assert picture.shape[0] > 4 * 126
    assert boxes.shape == (126, 190, 3)
    blue, _, red = picture[: 4 * 126].astype(int).transpose(2, 0, 1)
    far = picture[4 * 126 - 3, 3].astype(int)  # a corner of the picture without any heat
    # Box "bee": warm at its top-left corner, cool at its bottom-right one, outside of the brackets on both.
    assert (red - blue)[4 * 40 : 4 * 44, 4 * 100 : 4 * 104].max() > 100
    assert (blue - red)[4 * 106 : 4 * 110, 4 * 157 : 4 * 161].max() > 100
    assert abs(far[0] - far[2]) < 50


@pytest.mark.parametrize("views", [["--flip"], ["--scales", "0.5,1"], ["--scales", "0.5,1", "--flip"]], ids="-".join)
def test_corners_with_several_views_shows_the_heat_of_the_largest(detect, pictures, tmp_path, views):
    status, _, errors = detect(pictures / "a.png", "--corners", *views, "--output", tmp_path / "corners")
    assert (status, errors_in(errors)) == (0, [])
    picture = read_picture(tmp_path / "corners" / "a.png").astype(int)
    assert picture.shape[1] == 4 * 190
    blue, _, red = picture[: 4 * 126].transpose(2, 0, 1)
    # Box "bee" as above: its heat is where it is without these options, neither mirrored nor smaller.
    assert (red - blue)[4 * 40 : 4 * 44, 4 * 100 : 4 * 104].max() > 100
    assert (blue - red)[4 * 106 : 4 * 110, 4 * 157 : 4 * 161].max() > 100


@pytest.mark.parametrize("frame_size", [(126, 190), (63, 95), (40, 300), (480, 200)])
def test_heat_on_the_frame_peaks_in_the_cell_of_the_corner(frame_size):
    placement = fit(frame_size, SMALL_SPEC.input_size)
    height, width = frame_size
    box = np.array([[0.3 * width, 0.4 * height, 0.8 * width, 0.9 * height]])
    sizes = {"map_size": SMALL_SPEC.map_size, "input_size": SMALL_SPEC.input_size}
    maps = ideal_maps(encode_boxes(placement.to_input(box), np.array([1]), classes=3, **sizes))
    for heat, corner in ((maps.tl_heat, box[0, :2]), (maps.br_heat, box[0, 2:])):
        level = heat_on_frame(heat, placement)
        assert level.shape == frame_size
        assert level.dtype == np.float32
        assert level.min() >= 0
        # Samples miss the middle of the cell by up to an eighth of it, in x and in y, and once more in the frame.
        assert 0.6 < level.max() <= 1
        y, x = np.unravel_index(level.argmax(), level.shape)
        # The middle of the cell, which is 4 pixels of the input wide, is at most half a cell from the corner; half a
        # pixel of the input and half a one of the frame are lost in resizing twice.
        reach = 2.5 * max(old / new for old, new in zip(frame_size, placement.size, strict=True)) + 0.5
        assert abs(x + 0.5 - corner[0]) <= reach
        assert abs(y + 0.5 - corner[1]) <= reach


@pytest.mark.parametrize(
    ("frame_size", "scale"), [((126, 190), 1.0), ((63, 95), 1.0), ((63, 94), 1.5), ((700, 90), 1.0)]
)
def test_heat_of_a_native_view_peaks_in_the_cell_of_the_corner(frame_size, scale):
    spec = replace(SMALL_SPEC, largest_size=(303, 303), dynamic=True, geometry="native")
    (placement,) = place(frame_size, spec, [scale])
    height, width = frame_size
    box = np.array([[0.3 * width, 0.4 * height, 0.8 * width, 0.9 * height]])
    rows, columns = placement.input_size
    sizes = {"map_size": ((rows + 1) // 4, (columns + 1) // 4), "input_size": (rows, columns)}
    maps = ideal_maps(encode_boxes(placement.to_input(box), np.array([1]), classes=3, **sizes))
    for heat, corner in ((maps.tl_heat, box[0, :2]), (maps.br_heat, box[0, 2:])):
        level = heat_on_frame(heat, placement)
        assert level.shape == frame_size
        y, x = np.unravel_index(level.argmax(), level.shape)
        # As above, and one pixel of the input more, for native resizing cuts sides and loses the last row.
        reach = 3.5 / placement.scale[0] + 0.5
        assert abs(x + 0.5 - corner[0]) <= reach
        assert abs(y + 0.5 - corner[1]) <= reach


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


# What is said of scales.


@pytest.mark.parametrize(
    ("scales", "note"),
    [
        ("0.5,1,1.5", "scales 0.5, 1, 1.5 become 0.333, 0.667, 1 of what fills it"),
        ("2", "scales 2 become 1 of what fills it"),
        ("1.5,0.75", "scales 1.5, 0.75 become 1, 0.5 of what fills it"),
    ],
)
def test_scales_that_a_fixed_input_cannot_take_are_noted_with_what_becomes_of_them(detect, pictures, scales, note):
    status, output, errors = detect(pictures / "a.png", "--scales", scales)
    assert (status, output) == (0, "")
    assert errors.count(f"the input of this model is fixed: {note}\n") == 1


@pytest.mark.parametrize("options", [[], ["--scales", "1"], ["--scales", "0.5,1"], ["--scales", "0.5"], ["--flip"]])
def test_scales_that_a_fixed_input_can_take_need_no_note(detect, pictures, options):
    assert "the input of this model is fixed" not in detect(pictures / "a.png", *options)[2]


def test_a_model_of_any_size_takes_all_scales_without_a_note(detect, pictures, tmp_path, write_onnx, small_outputs):
    spec = replace(SMALL_SPEC, largest_size=(303, 303), dynamic=True, geometry="native")
    image = ("image", ("batch", 3, "height", "width"))
    model = write_onnx(tmp_path / "any.onnx", small_outputs, {"cornernet": spec_to_text(spec)}, image)
    status, _, errors = detect(pictures / "a.png", "--scales", "0.5,1,1.5", "--score", "1", model=model)
    assert (status, errors_in(errors)) == (0, [])
    assert "1 picture, 0 objects" in errors
    assert "the input of this model is fixed" not in errors


# What goes wrong.


def test_a_broken_picture_is_named_skipped_and_counted_and_the_others_are_done(detect, pictures, tmp_path):
    (pictures / "b.png").write_bytes(b"no picture")
    (pictures / "bb.png").write_bytes(b"")
    status, output, errors = detect(pictures, "--json", "-", "--output", tmp_path / "out")
    assert status == 1
    assert [Path(row["source"]).name for row in rows_of(output)] == ["a.png", "c.jpg"]
    assert names(tmp_path / "out") == ["a.png", "c.jpg"]
    assert errors_in(errors) == [
        f"error: {pictures / 'b.png'}: cannot be decoded as a picture",
        f"error: {pictures / 'bb.png'}: cannot be decoded as a picture",
        "error: 2 of 4 pictures could not be read",
    ]


def test_when_no_picture_can_be_read_there_is_no_line(detect, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    status, output, errors = detect(tmp_path / "a.png", "--json", "-")
    assert (status, output) == (1, "")
    assert errors_in(errors)[-1] == "error: 1 of 1 pictures could not be read"


@pytest.mark.parametrize("source", ["missing.png", "empty", "*.jpg"])
def test_no_picture_found_is_one_line_and_nothing_written(detect, pictures, tmp_path, source):
    (tmp_path / "empty").mkdir()
    out, lines = tmp_path / "out", tmp_path / "out.jsonl"
    status, output, errors = detect(pictures, tmp_path / source, "--output", out, "--json", lines)
    assert (status, output) == (1, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"error: {tmp_path / source}: no ")
    assert not out.exists()
    assert not lines.exists()


@pytest.mark.parametrize("option", ["--output", "--json"])
def test_a_model_that_cannot_be_opened_is_one_line_and_nothing_written(detect, pictures, tmp_path, option):
    status, output, errors = detect(pictures, option, tmp_path / "out", model=tmp_path / "missing")
    assert (status, output) == (1, "")
    assert errors == (
        f"error: {tmp_path / 'missing'} does not exist; cornernet-export makes bundles from checkpoints\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_backend_is_one_line(detect, pictures):
    status, output, errors = detect(pictures, "--backend", "warp")
    assert (status, output) == (1, "")
    assert errors == "error: no backend is called 'warp'; there are tensorrt, onnxruntime, openvino, openvino-bf16\n"


def test_a_picture_is_not_overwritten_by_its_own_copy(detect, pictures):
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    status, _, errors = detect(pictures, "--output", pictures)
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"error: {pictures / 'a.png'}: would overwrite ")
    assert {path: path.read_bytes() for path in pictures.iterdir()} == before


def test_a_picture_is_not_overwritten_through_a_link(detect, pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures)
    before = (pictures / "a.png").read_bytes()
    status, _, errors = detect(pictures / "a.png", "--output", tmp_path / "link")
    assert status == 1
    assert "would overwrite" in errors
    assert (pictures / "a.png").read_bytes() == before


def test_a_picture_is_not_overwritten_by_the_copy_of_another(detect, tmp_path):
    save(tmp_path / "one" / "x.png", noise(seed=1))
    other = save(tmp_path / "two" / "x.png", noise(seed=2))
    before = other.read_bytes()
    status, _, errors = detect(tmp_path / "one", tmp_path / "two", "--output", tmp_path / "two")
    assert status == 1
    assert "would overwrite" in errors
    assert other.read_bytes() == before
    assert names(tmp_path / "two") == ["x.png"]


def test_an_output_that_is_a_file_is_one_line(detect, pictures, tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    status, _, errors = detect(pictures, "--output", tmp_path / "out")
    assert status == 1
    assert errors == f"error: cannot make the folder {tmp_path / 'out'}: File exists\n"
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_result_that_cannot_be_written_leaves_the_old_lines_alone(detect, pictures, tmp_path):
    (tmp_path / "out" / "b.png").mkdir(parents=True)  # in the way of the second picture
    (tmp_path / "out.jsonl").write_text("old")
    status, _, errors = detect(pictures, "--output", tmp_path / "out", "--json", tmp_path / "out.jsonl")
    assert status == 1
    assert errors_in(errors) == [f"error: cannot write {tmp_path / 'out' / 'b.png'}: Is a directory"]
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert names(tmp_path) == ["out", "out.jsonl", "pictures"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: MODEL, SOURCE"),
        (["model"], "the following arguments are required: SOURCE"),
        (["model", "a.png", "--score", "1.5"], "argument --score: expected a number from 0 to 1, got '1.5'"),
        (["model", "a.png", "--score", "-0.1"], "argument --score: expected a number from 0 to 1, got '-0.1'"),
        (["model", "a.png", "--score", "nan"], "argument --score: expected a number from 0 to 1, got 'nan'"),
        (["model", "a.png", "--score", "high"], "argument --score: "),
        (["model", "a.png", "--output"], "argument --output: expected one argument"),
        (["model", "a.png", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["model", "a.png", "--scales"], "argument --scales: expected one argument"),
        (["model", "a.png", "--flip=yes"], "argument --flip: ignored explicit argument 'yes'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_was_wrong(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output, errors = capsys.readouterr()
    assert caught.value.code == 2
    assert output == ""
    assert errors.startswith("usage: cornernet-detect ")
    assert f"cornernet-detect: error: {message}" in errors


@pytest.mark.parametrize(
    "scales",
    [
        "",
        ",",
        "1,",
        "1,,2",
        "a",
        "1;2",
        "0",
        "0.5,0",
        "-1",
        "1,-0.5",
        "nan",
        "1,nan",
        "inf",
        "1,10.1",
        "1,1",
        "1,0.5,1.0",
    ],
)
def test_scales_that_are_no_distinct_positive_numbers_end_with_2(capsys, scales):
    with pytest.raises(SystemExit) as caught:
        main(["model", "a.png", f"--scales={scales}"])
    output, errors = capsys.readouterr()
    assert (caught.value.code, output) == (2, "")
    assert errors.endswith(
        "cornernet-detect: error: argument --scales: expected distinct numbers above 0 and up to 10 "
        f"such as 0.5,1,1.5, got {scales!r}\n"
    )


# In a process of its own.


def test_json_to_standard_output_is_only_json_lines(planted_model, pictures):
    process = start(planted_model, pictures, "--json", "-")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert [Path(row["source"]).name for row in rows_of(output)] == ["a.png", "b.png", "c.jpg"]
    assert "3 pictures, 6 objects" in errors
    assert "\x1b" not in errors, "no terminal, no colours"


def test_broken_pictures_are_one_line_each_and_no_traceback(planted_model, pictures):
    for name in ("b.jpg", "d.bmp", "e.tif"):  # OpenCV would add reports of its own
        save(pictures / name, noise(seed=9))
        content = (pictures / name).read_bytes()
        (pictures / name).write_bytes(content[: len(content) // 2])
    process = start(planted_model, pictures)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert "Traceback" not in errors
    assert "OpenCV" not in errors
    assert errors_in(errors) == [
        *(f"error: {pictures / name}: cannot be decoded as a picture" for name in ("b.jpg", "d.bmp", "e.tif")),
        "error: 3 of 6 pictures could not be read",
    ]


def test_a_reader_that_stops_ends_the_command_quietly(planted_model, pictures):
    process = start(planted_model, pictures, "--json", "-")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141, errors
    assert "Traceback" not in errors
    assert "Exception" not in errors

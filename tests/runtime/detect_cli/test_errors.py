"""What goes wrong: pictures, models, outputs and arguments that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases.detect_cli import errors_in, names, noise, rows_of, save

from cornernet_runtime.cli.detect import main


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

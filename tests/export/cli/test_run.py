"""A good run of ``cornernet-export``: what it prints and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from cases.export_cli import content_of
from cases.small import SMALL_SPEC, small_model
from places import python_path

from cornernet_export import bundle_export
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.cli import main
from cornernet_export.verification.verify import sample_picture
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_runtime.version import __version__


@pytest.fixture(scope="module")
def run(tmp_path_factory, checkpoint_path):
    """One real run of the command in a process of its own, at another size than the checkpoint names."""
    output = tmp_path_factory.mktemp("run") / "deep" / "bundle"
    command = [sys.executable, "-m", "cornernet_export.cli", str(checkpoint_path), "--output", str(output)]
    process = subprocess.run(  # noqa: S603 - this interpreter with our own arguments
        [*command, "--size", "47x31"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path(*sys.path)},
    )
    return output, process


def test_run_ends_with_status_0(run):
    _, process = run
    assert process.returncode == 0, process.stderr


def test_table_names_every_output_with_its_errors_and_tolerance(run):
    _, process = run
    rows = {line.split()[0]: line.split()[1:] for line in process.stderr.splitlines() if line.strip()}
    for name in OUTPUT_NAMES:
        picture, noise, tolerance, verdict = rows[name]
        assert (tolerance, verdict) == ("1e-04", "ok")
        assert all(re.fullmatch(r"\d\.\de[-+]\d\d", error) and float(error) < 1e-4 for error in (picture, noise))
    assert "PyTorch -> ONNX Runtime" in process.stderr
    ties = r"(\d+ more differ by near ties only, )?"  # random weights give some, which rounding decides
    found = r"detections on the picture: \d+ of \d+ matched, " + ties + r"0 extra \(100% required\)\s+ok"
    assert re.search(found, process.stderr)


def test_no_line_of_the_table_is_cut_off_or_wrapped(run):
    _, process = run
    assert "…" not in process.stderr
    assert max(map(len, process.stderr.splitlines()[:-1])) <= 90


def test_last_line_says_what_was_made(run):
    output, process = run
    size = (output / "model.onnx").stat().st_size / 1e6
    assert process.stderr.splitlines()[-1] == f"{output}: small, 3 classes, 47x31, fp32, {size:.1f} MB"


def test_standard_output_that_is_no_terminal_stays_empty(run):
    _, process = run
    assert process.stdout == ""


def test_exporter_and_its_libraries_say_nothing(run):
    output, process = run
    others = ("Warning", "warn", "torch", "onnxscript", "torchvision", "[W:", "[E:")
    text = process.stderr.replace(str(output), "")
    assert [word for word in others if word in text.replace("PyTorch", "")] == []


def test_bundle_is_the_model_and_its_side_car(run):
    output, _ = run
    assert sorted(content_of(output)) == ["bundle.json", "model.onnx"]


def test_run_leaves_no_other_file_beside_the_bundle(run):
    output, _ = run
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


def test_bundle_is_readable_by_others(run):
    """A temporary folder is private; what takes its place must not be."""
    output, _ = run
    like = output.parent / "like"
    like.mkdir()
    modes = [path.stat().st_mode & 0o777 for path in (output, like)]
    like.rmdir()
    assert modes[0] == modes[1]


def test_side_car_says_what_the_bundle_is(run, checkpoint_path):
    output, _ = run
    data = json.loads((output / "bundle.json").read_text(encoding="utf-8"))
    assert data["schema_version"] == 1
    assert data["producer"] == f"cornernet-trt {__version__}"
    assert data["spec"] == to_json(replace(SMALL_SPEC, input_size=(47, 31), largest_size=(47, 31)))
    assert data["files"] == {"model.onnx": hashlib.sha256((output / "model.onnx").read_bytes()).hexdigest()}
    assert data["checkpoint"] == {
        "name": checkpoint_path.name,
        "sha256": hashlib.sha256(checkpoint_path.read_bytes()).hexdigest(),
    }
    assert set(data) == {"schema_version", "producer", "spec", "files", "verification", "engine", "checkpoint"}


def test_side_car_keeps_what_was_compared(run):
    output, process = run
    verification = read_manifest(output).verification
    assert verification.passed
    assert [(check.source, check.output) for check in verification.outputs] == [
        (source, name) for source in ("picture", "noise") for name in OUTPUT_NAMES
    ]
    assert {(check.stage, check.tolerance) for check in verification.outputs} == {("PyTorch -> ONNX Runtime", 1e-4)}
    (pairs,) = verification.detections
    assert f"{pairs.matched} of {pairs.reference} matched" in process.stderr


def test_bundle_opens_at_the_size_that_was_asked_for(run):
    output, _ = run
    with Detector.open(output) as detector:
        assert detector.spec.input_size == detector.spec.largest_size == (47, 31)
        maps, _ = detector.corner_maps(sample_picture())
    assert maps.tl_heat.shape == (3, 12, 8)


def test_standard_error_takes_the_words_in_process_too(checkpoint_path, tmp_path, capfd, quick):
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle")]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].endswith("small, 3 classes, 63x95, fp32, 0.6 MB")
    assert quick == [(63, 95)]


def test_names_with_brackets_are_printed_as_they_are(tmp_path, capfd, quick):
    """Rich takes what is in brackets for a style unless told otherwise."""
    save_checkpoint(tmp_path / "some.safetensors", small_model(), replace(SMALL_SPEC, name="net[bold]"))
    output = tmp_path / "out[red]"
    assert main([str(tmp_path / "some.safetensors"), "--output", str(output)]) == 0
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"{output}: net[bold], ")
    assert quick == [(63, 95)]


def test_stages_are_told_in_order(checkpoint_path, tmp_path, quick):
    told = []
    request = bundle_export.ExportRequest(checkpoint_path, tmp_path / "bundle")
    manifest = bundle_export.export_bundle(request, on_stage=told.append)
    assert told == ["loading the checkpoint", "exporting to ONNX", "verifying ONNX Runtime against PyTorch"]
    assert read_manifest(tmp_path / "bundle") == manifest
    assert quick == [(63, 95)]

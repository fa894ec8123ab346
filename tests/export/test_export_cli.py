"""``cornernet-export``: what it prints, what it leaves on disk, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import onnx
import pytest
from cases.small import SMALL_SPEC, small_model
from safetensors.torch import save_file

from cornernet_export import bundle_export
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.cli import main
from cornernet_export.verify import sample_picture
from cornernet_runtime.bundle import read_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import OutputError
from cornernet_runtime.maps import OUTPUT_NAMES
from cornernet_runtime.records import to_json
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
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return output, process


@pytest.fixture
def quick(monkeypatch, bundle_path):
    """Spare the seconds that torch.onnx.export takes where the graph is not what is tested; returns the sizes asked."""
    sizes = []

    def build(_model, spec):
        sizes.append(spec.input_size)
        return onnx.load(bundle_path / "model.onnx")

    monkeypatch.setattr(bundle_export, "build_onnx", build)
    return sizes


@pytest.fixture
def no_export(monkeypatch):
    """Fail where a command goes as far as exporting."""

    def build(_model, _spec):
        pytest.fail("the export began before its arguments were checked")

    monkeypatch.setattr(bundle_export, "build_onnx", build)


def error_of(capfd, *, lines=1):
    """Return what was printed to standard error: an error of so many lines, and nothing else anywhere."""
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) == lines, err
    assert err.startswith("error: ")
    return err.removeprefix("error: ").rstrip("\n")


def content_of(folder):
    """Return the content of every file below a folder, hidden ones included."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old(tmp_path):
    """An output folder that exists and is a bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.json").write_text("kept")
    return folder


# A good run.


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
    assert re.search(r"detections on the picture: (\d+) of \1 matched, 0 extra \(100% required\)\s+ok", process.stderr)


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


# Sizes.


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("size", "side", "nearest"),
    [
        ("64x95", 64, "63 and 79"),
        ("63x94", 94, "79 and 95"),
        ("1x95", 1, "15"),
        ("0x95", 0, "15"),
        ("16x16", 16, "15 and 31"),
        ("99998x95", 99998, "99983 and 99999"),
    ],
)
def test_size_off_the_modulus_names_the_nearest_valid_ones(checkpoint_path, tmp_path, capfd, size, side, nearest):
    status = main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), "--size", size])
    assert status == 1
    assert error_of(capfd) == (
        f"input side {side}: this network needs one less than a multiple of 16; nearest valid: {nearest}"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "size", ["", "511", "511x", "x511", "511X511", "511x511x3", "-1x15", "15.0x15", " 15x15", "axb"]
)
def test_size_that_is_no_size_is_wrong_usage(checkpoint_path, tmp_path, capfd, size):
    with pytest.raises(SystemExit) as ended:
        main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), f"--size={size}"])
    assert ended.value.code == 2
    assert f"expected HxW such as 511x511, got {size!r}" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_size_is_height_by_width(checkpoint_path, tmp_path, monkeypatch):
    asked = []

    def build(_model, spec):
        asked.append(spec.input_size)
        raise OutputError("enough")

    monkeypatch.setattr(bundle_export, "build_onnx", build)
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle"), "--size", "15x47"]) == 1
    assert asked == [(15, 47)]


# Wrong usage.


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["some.safetensors"],
        ["--output", "bundle"],
        ["a", "--output", "b", "--unknown"],
        ["a", "b", "--output", "c"],
    ],
    ids=" ".join,
)
def test_missing_or_unknown_arguments_are_wrong_usage(arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: cornernet-export" in capfd.readouterr().err


def test_help_names_every_option(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capfd.readouterr().out
    assert all(option in out for option in ("CHECKPOINT", "--output DIR", "--size HxW", "--force"))


# Output folders.


@pytest.mark.usefixtures("no_export")
def test_output_that_exists_is_refused_and_unchanged(checkpoint_path, old, tmp_path, capfd):
    assert main([str(checkpoint_path), "--output", str(old)]) == 1
    assert error_of(capfd) == f"{old} exists: choose another folder, or add --force to replace it"
    assert content_of(tmp_path) == {"bundle/bundle.json": b"kept"}


@pytest.mark.usefixtures("quick")
def test_force_replaces_the_whole_folder(checkpoint_path, old, tmp_path):
    assert main([str(checkpoint_path), "--output", str(old), "--force"]) == 0
    assert sorted(content_of(tmp_path)) == ["bundle/bundle.json", "bundle/model.onnx"]


@pytest.mark.usefixtures("no_export")
def test_force_does_not_replace_a_folder_that_is_no_bundle(checkpoint_path, tmp_path, capfd):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "precious.jpg").write_text("kept")
    assert main([str(checkpoint_path), "--output", str(tmp_path / "photos"), "--force"]) == 1
    assert error_of(capfd).startswith(f"{tmp_path / 'photos'} is no bundle")
    assert content_of(tmp_path) == {"photos/precious.jpg": b"kept"}


@pytest.mark.usefixtures("no_export")
def test_force_does_not_replace_the_folder_that_holds_the_checkpoint(checkpoint_path, tmp_path, capfd):
    checkpoint = tmp_path / "run" / "deep" / "small.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(checkpoint_path.read_bytes())
    (tmp_path / "run" / "bundle.json").write_text("an older export")
    assert main([str(checkpoint), "--output", str(tmp_path / "run"), "--force"]) == 1
    assert "holds the checkpoint itself" in error_of(capfd)
    assert checkpoint.is_file()


@pytest.mark.usefixtures("quick")
def test_folder_that_is_empty_needs_no_force(checkpoint_path, tmp_path):
    (tmp_path / "bundle").mkdir()
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle")]) == 0
    assert sorted(content_of(tmp_path)) == ["bundle/bundle.json", "bundle/model.onnx"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "key"])
def test_failure_with_force_keeps_the_old_folder(checkpoint_path, old, tmp_path, monkeypatch, capfd, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(bundle_export, "write_manifest", fail)
    status = main([str(checkpoint_path), "--output", str(old), "--force"])
    assert status == (1 if isinstance(error, OSError) else 130)
    assert content_of(tmp_path) == {"bundle/bundle.json": b"kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("quick")
def test_force_through_a_link_ends_in_a_bundle_or_leaves_nothing_behind(checkpoint_path, old, tmp_path, capfd):
    link = tmp_path / "link"
    link.symlink_to(old, target_is_directory=True)
    status = main([str(checkpoint_path), "--output", str(link), "--force"])
    assert "Traceback" not in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "link"]
    assert sorted(content_of(link.resolve())) == (["bundle.json", "model.onnx"] if status == 0 else ["bundle.json"])


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_output_that_is_a_file_is_refused(checkpoint_path, tmp_path, capfd, force):
    (tmp_path / "file").write_text("kept")
    assert main([str(checkpoint_path), "--output", str(tmp_path / "file"), *force]) == 1
    assert error_of(capfd) == f"{tmp_path / 'file'} is a file: choose the name of a folder"
    assert content_of(tmp_path) == {"file": b"kept"}


@pytest.mark.usefixtures("no_export")
def test_output_below_a_file_is_refused(checkpoint_path, tmp_path, capfd):
    (tmp_path / "file").write_text("kept")
    assert main([str(checkpoint_path), "--output", str(tmp_path / "file" / "bundle")]) == 1
    assert error_of(capfd).startswith(f"cannot write {tmp_path / 'file' / 'bundle'}: ")
    assert content_of(tmp_path) == {"file": b"kept"}


@pytest.mark.usefixtures("quick")
def test_disk_that_fills_up_leaves_nothing(checkpoint_path, tmp_path, monkeypatch, capfd):
    def full(_model, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    assert main([str(checkpoint_path), "--output", str(tmp_path / "bundle")]) == 1
    assert error_of(capfd) == "cannot write model.onnx: No space left on device"
    assert list(tmp_path.iterdir()) == []


# Checkpoints that cannot be used.


@pytest.fixture
def broken(request, checkpoint_path, tmp_path_factory):
    """A checkpoint with the fault that the test's parameter names."""
    path = tmp_path_factory.mktemp("broken") / "some.safetensors"
    content = checkpoint_path.read_bytes()
    if request.param == "truncated":
        path.write_bytes(content[:-100])
    elif request.param == "empty":
        path.write_bytes(b"")
    elif request.param == "text":
        path.write_text("no checkpoint\n" * 10)
    elif request.param == "foreign":
        save_file({"weight": small_model().stem[0][0].weight.detach()}, path)
    elif request.param == "newer":
        path.write_bytes(content.replace(b'schema_version\\": 1', b'schema_version\\": 2'))
    return path


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("missing", "no such file"),
        ("empty", "not a whole safetensors file"),
        ("truncated", "not a whole safetensors file"),
        ("text", "not a whole safetensors file"),
        ("foreign", "not a cornernet-trt checkpoint"),
        ("newer", "written with schema 2, this version reads up to 1"),
    ],
    indirect=["broken"],
    ids=lambda value: value if " " not in value else "",
)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "force"])
def test_checkpoint_that_cannot_be_used_is_one_line_and_leaves_nothing(broken, message, existing, tmp_path, capfd):
    output = tmp_path / "deep" / "bundle"
    if existing:
        output.mkdir(parents=True)
        (output / "bundle.json").write_text("kept")
    assert main([str(broken), "--output", str(output), *["--force"][: int(existing)]]) == 1
    error = error_of(capfd)
    assert error.startswith(f"{broken}: ")
    assert message in error
    assert content_of(tmp_path) == ({"deep/bundle/bundle.json": b"kept"} if existing else {})
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.usefixtures("no_export")
def test_checkpoint_whose_tensors_disagree_prints_the_table(checkpoint_path, tmp_path, capfd):
    path = tmp_path / "some.safetensors"
    content = checkpoint_path.read_bytes()
    # The header says other widths; both texts keep their length.
    path.write_bytes(content.replace(b'\\"dims\\": [16, 16, 24]', b'\\"dims\\": [16, 16, 32]'))
    assert main([str(path), "--output", str(tmp_path / "bundle")]) == 1
    error = error_of(capfd, lines=1 + 1 + 10 + 1)
    assert "its tensors are not those of a small; " in error
    assert re.search(
        r"hourglasses\.0\.inner\.down\.0\.first\.0\.weight +float32 \[32, 16, 3, 3\] +float32 \[24, 16", error
    )
    assert re.search(r"\.\.\. and \d+ more$", error)
    assert [path.name for path in tmp_path.iterdir()] == ["some.safetensors"]


def test_weights_that_are_not_finite_fail_verification_and_leave_nothing(tmp_path, monkeypatch, capfd, bundle_path):
    """NaN equals nothing, not even the NaN of the export."""

    def build(_model, _spec):
        exported = onnx.load(bundle_path / "model.onnx")
        (tensor,) = (item for item in exported.graph.initializer if item.name == "stem.0.0.weight")
        weights = onnx.numpy_helper.to_array(tensor).copy()
        weights[:] = float("nan")
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        return exported

    monkeypatch.setattr(bundle_export, "build_onnx", build)
    model = small_model()
    model.stem[0][0].weight.data.fill_(float("nan"))
    save_checkpoint(tmp_path / "some.safetensors", model, SMALL_SPEC)
    assert main([str(tmp_path / "some.safetensors"), "--output", str(tmp_path / "bundle")]) == 1
    err = capfd.readouterr().err
    assert "not finite" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["some.safetensors"]


def test_stages_are_told_in_order(checkpoint_path, tmp_path, quick):
    told = []
    request = bundle_export.ExportRequest(checkpoint_path, tmp_path / "bundle")
    manifest = bundle_export.export_bundle(request, on_stage=told.append)
    assert told == ["loading the checkpoint", "exporting to ONNX", "verifying ONNX Runtime against PyTorch"]
    assert read_manifest(tmp_path / "bundle") == manifest
    assert quick == [(63, 95)]

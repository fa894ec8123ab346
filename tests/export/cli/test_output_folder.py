"""Output folders that exist, cannot be written or fill up."""

from __future__ import annotations

import onnx
import pytest
from cases.export_cli import content_of, error_of

from cornernet_export import bundle_export
from cornernet_export.cli import main


@pytest.fixture
def old(tmp_path):
    """An output folder that exists and is a bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.json").write_text("kept")
    return folder


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

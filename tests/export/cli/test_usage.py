"""Sizes and arguments of ``cornernet-export``."""

from __future__ import annotations

import pytest
from cases.export_cli import error_of

from cornernet_export import bundle_export
from cornernet_export.cli import main
from cornernet_runtime.errors import OutputError

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

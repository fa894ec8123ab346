"""What cornernet-export left and said."""

from __future__ import annotations


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

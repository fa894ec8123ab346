from __future__ import annotations

import contextlib
import os
import resource
import stat
from pathlib import Path

import pytest

from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import cache_folder, make_folder, new_folder, open_atomically, sha256, write_atomically


class TroubleError(Exception):
    """What goes wrong inside a block, as a caller's own error."""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def files_at_most(size):
    """Let the system refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def old_folder(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old.txt").write_text("old")
    return path


# Files.


@pytest.mark.parametrize(
    ("data", "content"), [(b"\x00\xff", b"\x00\xff"), ("gr\u00f6\u00dfe\n", b"gr\xc3\xb6\xc3\x9fe\n"), (b"", b"")]
)
def test_bytes_are_written_as_they_are_and_text_as_utf8(tmp_path, data, content):
    write_atomically(tmp_path / "new", data)
    assert (tmp_path / "new").read_bytes() == content
    assert names(tmp_path) == ["new"]


def test_an_existing_file_is_replaced(old):
    write_atomically(old, b"new")
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["result.json"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_gets_the_permissions_that_the_umask_leaves(tmp_path, mask, mode):
    with umask(mask):
        write_atomically(tmp_path / "new", b"")
        assert os.umask(mask) == mask, "the umask itself must stay"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


def test_the_old_content_stands_until_the_block_ends(old):
    with open_atomically(old) as stream:
        stream.write(b"new")
        stream.flush()
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == b"new"


@pytest.mark.parametrize("error", [TroubleError, KeyboardInterrupt])
def test_a_failure_in_the_block_leaves_the_old_file_alone(old, error):
    with pytest.raises(error), open_atomically(old) as stream:  # noqa: PT012 - the block is what is tested
        stream.write(b"half")
        raise error
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["result.json"]


def test_a_failure_in_the_block_leaves_no_new_file(tmp_path):
    with pytest.raises(TroubleError), open_atomically(tmp_path / "new") as stream:  # noqa: PT012 - the block is what is tested
        stream.write(b"half")
        raise TroubleError
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [4096, 1_000_000])
def test_a_disk_without_room_leaves_the_old_file_alone(old, size):
    with files_at_most(2048), pytest.raises(OutputError, match=f"^cannot write {old}: File too large$"):
        write_atomically(old, b"x" * size)
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["result.json"]


def test_a_missing_folder_is_named_with_the_file(tmp_path):
    path = tmp_path / "missing" / "new"
    with pytest.raises(OutputError, match=f"^cannot write {path}: No such file or directory$"):
        write_atomically(path, b"")


def test_a_file_in_place_of_the_folder_is_no_folder(old):
    path = old / "new"
    with pytest.raises(OutputError, match=f"^cannot write {path}: Not a directory$"):
        write_atomically(path, b"")
    assert old.read_bytes() == b"old"


def test_a_folder_in_place_of_the_file_stays(old_folder):
    with pytest.raises(OutputError, match=f"^cannot write {old_folder}: Is a directory$"):
        write_atomically(old_folder, b"new")
    assert names(old_folder.parent) == ["bundle"]
    assert names(old_folder) == ["old.txt"]


def test_a_folder_closed_to_writing_is_an_output_error(open_folder, unprivileged):
    open_folder.chmod(0o555)
    path = open_folder / "new"
    with unprivileged(), pytest.raises(OutputError, match=f"^cannot write {path}: Permission denied$"):
        write_atomically(path, b"")
    assert names(open_folder) == []


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    # As --json /dev/stdout or /dev/null are: replacing these would break the machine, for root.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, b"line\n")
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 100) == b"line\n"
    finally:
        os.close(reader)
    assert names(tmp_path) == ["pipe"]


# Folders.


def test_a_new_folder_appears_whole_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "deep" / "bundle"
    with new_folder(path, replace=False) as folder:
        (folder / "model").write_text("new")
        assert not path.exists()
        assert folder.parent == path.parent, "the rename must stay within one file system"
    assert names(path) == ["model"]
    assert names(path.parent) == ["bundle"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o755), (0o077, 0o700)])
def test_a_folder_gets_the_permissions_that_the_umask_leaves(tmp_path, mask, mode):
    with umask(mask), new_folder(tmp_path / "bundle", replace=False):
        pass
    assert stat.S_IMODE((tmp_path / "bundle").stat().st_mode) == mode


def test_an_existing_folder_is_not_replaced_unless_asked(old_folder):
    with (
        pytest.raises(OutputError, match=f"^{old_folder} exists: choose another folder, or add --force to replace it$"),
        new_folder(old_folder, replace=False),
    ):
        pytest.fail("the block must not be entered")
    assert names(old_folder) == ["old.txt"]
    assert names(old_folder.parent) == ["bundle"]


def test_an_empty_folder_is_filled_without_asking(tmp_path):
    (tmp_path / "bundle").mkdir()
    with new_folder(tmp_path / "bundle", replace=False) as folder:
        (folder / "model").write_text("new")
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["model"]


def test_an_existing_folder_is_replaced_as_a_whole(old_folder):
    with new_folder(old_folder, replace=True) as folder:
        (folder / "model").write_text("new")
        assert names(old_folder) == ["old.txt"]
    assert names(old_folder) == ["model"]
    assert names(old_folder.parent) == ["bundle"]


@pytest.mark.parametrize("error", [TroubleError, KeyboardInterrupt])
def test_a_failure_in_the_block_leaves_the_old_folder_alone(old_folder, error):
    with pytest.raises(error), new_folder(old_folder, replace=True) as folder:  # noqa: PT012 - the block is tested
        (folder / "model").write_text("half")
        raise error
    assert names(old_folder) == ["old.txt"]
    assert names(old_folder.parent) == ["bundle"]


def test_a_failure_in_the_block_leaves_no_new_folder(tmp_path):
    with pytest.raises(TroubleError), new_folder(tmp_path / "bundle", replace=False) as folder:  # noqa: PT012 - as above
        (folder / "model").write_text("half")
        raise TroubleError
    assert names(tmp_path) == []


def test_a_disk_without_room_leaves_the_old_folder_alone(old_folder):
    with (
        files_at_most(2048),
        pytest.raises(OutputError, match=f"^cannot write {old_folder}: File too large$"),
        new_folder(old_folder, replace=True) as folder,
    ):
        (folder / "model").write_bytes(b"x" * 4096)
    assert names(old_folder) == ["old.txt"]
    assert names(old_folder.parent) == ["bundle"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_is_never_replaced_by_a_folder(old, replace):
    with (
        pytest.raises(OutputError, match=f"^{old} is a file: choose the name of a folder$"),
        new_folder(old, replace=replace),
    ):
        pytest.fail("the block must not be entered")
    assert old.read_bytes() == b"old"


def test_a_folder_cannot_be_made_below_a_file(old):
    with (
        pytest.raises(OutputError, match=f"^cannot write .*{old.name}.*: "),
        new_folder(old / "bundle", replace=False),
    ):
        pytest.fail("the block must not be entered")


def test_a_link_to_a_folder_stays_a_link_to_the_new_one(old_folder):
    link = old_folder.parent / "latest"
    link.symlink_to(old_folder.name)
    with new_folder(link, replace=True) as folder:
        (folder / "model").write_text("new")
    assert link.is_symlink()
    assert names(link) == ["model"]
    assert names(old_folder.parent) == ["bundle", "latest"]


def test_a_name_too_long_for_the_file_system_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="File name too long"), new_folder(tmp_path / ("x" * 300), replace=False):
        pytest.fail("the block must not be entered")
    assert names(tmp_path) == []


@pytest.mark.parametrize("existing", [True, False])
def test_a_new_folder_in_one_closed_to_writing_is_an_output_error(open_folder, unprivileged, existing):
    path = open_folder / "bundle"
    if existing:
        path.mkdir()
    open_folder.chmod(0o555)
    with (
        unprivileged(),
        pytest.raises(OutputError, match="Permission denied"),
        new_folder(path, replace=True),
    ):
        pytest.fail("the block must not be entered")


def test_a_folder_that_cannot_be_moved_away_stays_and_nothing_is_left(open_folder, unprivileged):
    if os.geteuid():
        pytest.skip("needs two accounts")
    path = open_folder / "bundle"
    path.mkdir()
    (path / "old.txt").write_text("old")
    open_folder.chmod(0o1777)  # as /tmp: all may write, none may touch what is another's
    with (
        unprivileged(),
        pytest.raises(OutputError, match=f"^cannot write {path}: Operation not permitted$"),
        new_folder(path, replace=True) as folder,
    ):
        (folder / "model").write_text("new")
    assert names(open_folder) == ["bundle"]
    assert names(path) == ["old.txt"]


@pytest.mark.parametrize("below", [True, False])
def test_a_folder_closed_to_looking_is_an_output_error(open_folder, unprivileged, below):
    closed = open_folder / "closed"
    closed.mkdir(mode=0)
    path = closed / "bundle" if below else closed
    with (
        unprivileged(),
        pytest.raises(OutputError, match="Permission denied"),
        new_folder(path, replace=False),
    ):
        pytest.fail("the block must not be entered")


def test_make_folder_makes_parents_and_keeps_what_is_there(tmp_path):
    path = tmp_path / "a" / "b"
    assert make_folder(path) == path
    (path / "kept").write_text("x")
    assert make_folder(path) == path
    assert names(path) == ["kept"]


def test_make_folder_refuses_a_file(old):
    with pytest.raises(OutputError, match=f"^cannot make the folder {old}: File exists$"):
        make_folder(old)


def test_sha256_is_that_of_the_standard(tmp_path):
    # FIPS 180-2, appendix B: one block, and a million letters.
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "long").write_bytes(b"a" * 1_000_000)
    assert sha256(tmp_path / "short") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "long") == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"CORNERNET_CACHE": "/x"}, "/x"),
        ({"CORNERNET_CACHE": "/x", "XDG_CACHE_HOME": "/y"}, "/x"),
        ({"XDG_CACHE_HOME": "/y"}, "/y/cornernet-trt"),
        ({"XDG_CACHE_HOME": "relative"}, "~/.cache/cornernet-trt"),  # to be ignored, says its specification
        ({}, "~/.cache/cornernet-trt"),
    ],
    ids=str,
)
def test_the_cache_lies_where_the_user_says_or_where_caches_lie(variables, folder, monkeypatch):
    for name in ("CORNERNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder).expanduser()

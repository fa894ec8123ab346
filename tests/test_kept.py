"""What tests make once is kept between runs, made again where anything changed, and never half made."""

import errno

import build_cache
import kept
import pytest


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(build_cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def maker(tmp_path):
    """Fill a folder through the cache; the number of times that something was made is in ``calls``."""
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "model.onnx").write_text(f"made {len(calls)}")

    def fill(folder, name="a model", make=make):
        (tmp_path / folder).mkdir()
        kept.fill(tmp_path / folder, name, make)
        return (tmp_path / folder / "model.onnx").read_text()

    fill.calls = calls
    return fill


def test_what_was_made_is_made_once(maker):
    assert [maker("first"), maker("second")] == ["made 1", "made 1"]


def test_what_a_test_changes_in_its_copy_stays_there(maker, tmp_path):
    maker("first")
    (tmp_path / "first" / "model.onnx").write_text("changed")
    assert maker("second") == "made 1"


def test_another_name_is_something_else(maker):
    assert [maker("first"), maker("second", "another model")] == ["made 1", "made 2"]


@pytest.mark.parametrize("variable", kept.VARIABLES)
def test_what_changes_how_networks_are_computed_has_it_made_again(maker, monkeypatch, variable):
    maker("first")
    monkeypatch.setenv(variable, "7")
    assert maker("second") == "made 2"


def test_a_source_that_changes_has_it_made_again(maker, monkeypatch, tmp_path):
    source = tmp_path / "sources" / "module.py"
    source.parent.mkdir()
    monkeypatch.setattr(kept, "FOLDERS", (source.parent,))
    made = []
    for text in ("one", "two", "two"):
        source.write_text(text)
        kept.sources.cache_clear()
        made.append(maker(str(len(made))))
    kept.sources.cache_clear()
    assert made == ["made 1", "made 2", "made 2"]


def test_one_that_failed_leaves_nothing(maker, empty_cache):
    def fail(folder):
        (folder / "model.onnx").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maker("first", make=fail)
    assert list(empty_cache.iterdir()) == []
    assert maker("second") == "made 1"


def test_of_two_at_once_each_has_a_whole_one(maker, tmp_path):
    def make(folder):
        if not (tmp_path / "inner").exists():
            maker("inner", make=make)  # another process, which is quicker
        (folder / "model.onnx").write_text("whole")

    assert maker("outer", make=make) == "whole"
    assert (tmp_path / "inner" / "model.onnx").read_text() == "whole"


def test_no_place_to_keep_it_costs_time_only(maker, empty_cache):
    empty_cache.write_text("a file")
    assert [maker("first"), maker("second")] == ["made 1", "made 2"]


def test_no_space_to_keep_it_costs_time_only(maker, empty_cache):
    def make(folder):
        if folder.parent == empty_cache:
            raise OSError(errno.ENOSPC, "no space left on device")
        (folder / "model.onnx").write_text("made elsewhere")

    assert maker("first", make=make) == "made elsewhere"

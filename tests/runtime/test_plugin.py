import json
from pathlib import Path

import pytest
from places import ROOT

from cornernet_runtime import plugin
from cornernet_runtime.errors import PluginError
from cornernet_runtime.plugin import PLUGIN_VARIABLE, PluginInfo, find_plugin, plugin_info


def test_library_named_in_the_environment_goes_before_the_packaged_one_and_that_before_the_one_built_here(
    monkeypatch, tmp_path
):
    built, packaged, named = tmp_path / "built.so", tmp_path / "packaged.so", tmp_path / "named.so"
    places = packaged, built
    monkeypatch.delenv(PLUGIN_VARIABLE, raising=False)
    assert find_plugin(places) is None
    built.touch()
    assert find_plugin(places) == built
    packaged.touch()
    assert find_plugin(places) == packaged
    monkeypatch.setenv(PLUGIN_VARIABLE, str(named))
    with pytest.raises(PluginError, match=r"CORNERNET_PLUGIN names no file: .*named\.so"):
        find_plugin(places)
    named.touch()
    assert find_plugin(places) == named


@pytest.mark.parametrize("version", ["0.1.0", "1.2.0rc1", "2.0+local"])
def test_version_is_read_out_of_the_file(tmp_path, version):
    library = tmp_path / "library.so"
    library.write_bytes(
        b"\x7fELF" * 1000 + b"cornernet_plugins version " + version.encode() + b" for TensorRT 11\0more"
    )
    assert plugin_info(library) == PluginInfo(version, 11)


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"cornernet_plugins version 1.0\0", b"cornernet_plugins version 1.0 for TensorRT 11"]
)
def test_file_without_a_version_is_refused(tmp_path, content):
    library = tmp_path / "library.so"
    library.write_bytes(content)
    with pytest.raises(PluginError, match=r"library\.so"):
        plugin_info(library)


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PluginError, match="cannot be read"):
        plugin_info(tmp_path / "library.so")


def test_a_checkout_looks_where_cmake_builds():
    presets = json.loads((ROOT / "CMakePresets.json").read_text())
    binary = next(row for row in presets["configurePresets"] if row["name"] == "release")["binaryDir"]
    folder = Path(binary.replace("${sourceDir}", str(ROOT)))
    assert folder / "plugins" / "libcornernet_plugins.so" == plugin.BUILT_PLUGIN
    assert f"add_subdirectory({plugin.BUILT_PLUGIN.parent.name}" in (ROOT / "CMakeLists.txt").read_text()

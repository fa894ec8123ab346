import pytest

from cornernet_runtime import plugin
from cornernet_runtime.errors import PluginError
from cornernet_runtime.plugin import PLUGIN_VARIABLE, PluginInfo, find_plugin, plugin_info


def test_library_named_in_the_environment_goes_before_the_packaged_one(monkeypatch, tmp_path):
    packaged, named = tmp_path / "packaged.so", tmp_path / "named.so"
    monkeypatch.setattr(plugin, "PACKAGED_PLUGIN", packaged)
    monkeypatch.delenv(PLUGIN_VARIABLE, raising=False)
    assert find_plugin() is None
    packaged.touch()
    assert find_plugin() == packaged
    monkeypatch.setenv(PLUGIN_VARIABLE, str(named))
    with pytest.raises(PluginError, match=r"CORNERNET_PLUGIN names no file: .*named\.so"):
        find_plugin()
    named.touch()
    assert find_plugin() == named


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

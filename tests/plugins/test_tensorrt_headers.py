"""CMake's search for TensorRT's headers: what it takes, what it refuses, and what it says where there are none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

MODULE = ROOT / "cmake" / "TensorRTHeaders.cmake"
SYSTEM = [Path(place) / "NvInferRuntime.h" for place in ("/usr/include", "/usr/local/include")]

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not on PATH")
without_system_headers = pytest.mark.skipif(
    any(place.is_file() for place in [*SYSTEM, *Path("/usr/include").glob("*/NvInferRuntime.h")]),
    reason="this machine has TensorRT's headers in a system folder",
)


def find(folder, *settings, root="", environment=""):
    """Search as the project's CMakeLists.txt does, with ``folder`` for build folder; return what it printed."""
    script = folder / "find.cmake"
    lines = [f"include({MODULE})", *settings, "cornernet_find_tensorrt(include reason)"]
    script.write_text("\n".join([*lines, 'message("[${include}] [${reason}]")']), encoding="utf-8")
    command = ["cmake", f"-DTensorRT_ROOT={root}", "-P", script]
    variables = os.environ | {"TensorRT_ROOT": str(environment)}
    done = subprocess.run(  # noqa: S603 - our script
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def write_headers(root, version, style="NV_TENSORRT"):
    include = root / "include"
    include.mkdir(parents=True)
    (include / "NvInferRuntime.h").touch()
    major, minor = version.split(".")
    suffix = "_ENTERPRISE" if style == "TRT" else ""
    lines = [f"#define {style}_MAJOR{suffix} {major} //!< major", f"#define {style}_MINOR{suffix} {minor} //!< minor"]
    (include / "NvInferVersion.h").write_text("\n".join(lines), encoding="utf-8")
    return include


@pytest.mark.parametrize("style", ["NV_TENSORRT", "TRT"])
@pytest.mark.parametrize("version", ["10.12", "11.4"])
def test_headers_under_the_root_are_taken(tmp_path, version, style):
    include = write_headers(tmp_path / "tensorrt", version, style)
    status, told = find(tmp_path, root=tmp_path / "tensorrt")
    assert status == 0, told
    assert f"headers of TensorRT {version} in {include}" in told


def test_root_may_be_named_in_the_environment(tmp_path):
    include = write_headers(tmp_path / "tensorrt", "11.4")
    write_headers(tmp_path / "other", "10.12")
    assert f"11.4 in {include}" in find(tmp_path, environment=tmp_path / "tensorrt")[1]
    assert f"11.4 in {include}" in find(tmp_path, root=tmp_path / "tensorrt", environment=tmp_path / "other")[1]


def test_headers_older_than_supported_are_refused_by_version(tmp_path):
    include = write_headers(tmp_path / "tensorrt", "10.9")
    status, told = find(tmp_path, root=tmp_path / "tensorrt")
    assert status == 0, told
    assert f"[] [{include} has TensorRT 10.9, expected 10.12 or later]" in told


def test_root_without_headers_is_an_error(tmp_path):
    status, told = find(tmp_path, root=tmp_path)
    assert status != 0
    assert f"TensorRT_ROOT is '{tmp_path}': expected include/NvInferRuntime.h there, found none" in " ".join(
        told.split()
    )


@without_system_headers
def test_want_of_headers_without_fetching_is_no_error(tmp_path):
    status, told = find(tmp_path, "set(CORNERNET_FETCH_TENSORRT OFF)")
    assert status == 0, told
    assert "[] [no NvInferRuntime.h of TensorRT 10.12 or later]" in told
    assert "fetching" not in told


@without_system_headers
def test_fetch_that_fails_is_no_error_and_leaves_nothing(tmp_path):
    status, told = find(tmp_path, f"set(CORNERNET_TENSORRT_REPOSITORY file://{tmp_path}/nowhere)")
    assert status == 0, told
    assert (
        f"[] [no NvInferRuntime.h of TensorRT 10.12 or later, and none could be fetched from file://{tmp_path}" in told
    )
    assert not list((tmp_path / "_deps").iterdir())


@without_system_headers
def test_headers_are_fetched_once_and_nothing_beside_them(tmp_path):
    repository = tmp_path / "repository"
    write_headers(repository, "11.1")
    (repository / "samples").mkdir()
    (repository / "samples" / "large.bin").touch()

    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        command = ["git", *identity, "-C", repository, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - fixed

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "headers")
    git("config", "uploadpack.allowFilter", "true")
    settings = [
        f"set(CORNERNET_TENSORRT_REPOSITORY file://{repository})",
        f"set(CORNERNET_TENSORRT_COMMIT {git('rev-parse', 'HEAD')})",
    ]
    status, told = find(tmp_path, *settings)
    assert status == 0, told
    assert "fetching the headers" in told
    (fetched,) = (tmp_path / "_deps").iterdir()
    assert f"headers of TensorRT 11.1 in {fetched / 'include'}" in told
    assert (fetched / "include" / "NvInferRuntime.h").is_file()
    assert not (fetched / "samples").exists()
    assert "fetching" not in find(tmp_path, *settings)[1]

"""Builds of the tests are kept: taken where nothing changed, made again where anything did, and never half made."""

import os
import shutil
import signal
import subprocess
import sys
import time

import build_cache
import pytest
from places import SUPPORT

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="g++ compiles what is kept")

SOURCE = '#include <cstdio>\n#include "number.h"\nint main() { std::printf("%d", NUMBER); }\n'
# Counts its calls, and waits where it is told to.
COMPILER = """#!/bin/sh
[ "$1" = --version ] && {{ echo "{version}"; exit 0; }}
echo called >> {calls}
{GXX} "$@" || exit 1
while [ -e {hold} ]; do sleep 0.02; done
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A program of a source and a header, a compiler that counts, and an empty cache."""
    project = Project(tmp_path)
    monkeypatch.setenv(build_cache.VARIABLE, str(project.cache))
    return project


class Project:
    def __init__(self, folder):
        self.source, self.header, self.cache = folder / "main.cpp", folder / "number.h", folder / "cache"
        self.calls, self.hold = folder / "calls", folder / "hold"
        self.source.write_text(SOURCE)
        self.header.write_text("#define NUMBER 41\n")
        self.compiler = self.add_compiler("g++-for-tests", "1.0")

    def add_compiler(self, name, version):
        path = self.source.parent / name
        path.write_text(COMPILER.format(version=version, calls=self.calls, hold=self.hold, GXX=GXX))
        path.chmod(0o755)
        return path

    def stages(self, *flags, compiler=None):
        return [[[str(compiler or self.compiler), *flags, str(self.source), "-o", "program"]]]

    def build(self, *flags, compiler=None):
        return build_cache.build(self.stages(*flags, compiler=compiler), ["program"]) / "program"

    def printed(self, *flags, compiler=None):
        program = self.build(*flags, compiler=compiler)
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout  # noqa: S603 - built here

    def count(self):
        return len(self.calls.read_text().splitlines())

    def start(self):
        """Start another process that builds the same."""
        code = f"import build_cache\nprint(build_cache.build({self.stages()!r}, ['program']))"
        return subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def entries(self):
        return [path for path in self.cache.iterdir() if path.is_dir()]


def test_a_second_build_takes_the_first(project):
    assert project.build() == project.build()
    assert project.build().is_relative_to(project.cache)
    assert (project.printed(), project.count()) == ("41", 1)


def test_a_changed_header_is_seen(project):
    project.build()
    project.header.write_text("#define NUMBER 42\n")
    assert (project.printed(), project.count()) == ("42", 2)
    project.header.write_text("#define NUMBER 41\n")  # as on the way back to another branch
    assert (project.printed(), project.count()) == ("41", 2)


def test_a_changed_flag_text_and_variable_are_seen(project, monkeypatch):
    text = [[[str(project.compiler), "-shared", "text.cpp", "-o", "program"]]]
    folders = {project.build().parent, project.build("-O1").parent}
    folders |= {build_cache.build(text, ["program"], {"text.cpp": f"int x = {number};"}) for number in range(2)}
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", "/nowhere")
    folders.add(project.build().parent)
    assert (len(folders), project.count()) == (5, 5)


def test_a_changed_input_that_the_compiler_does_not_report_is_seen(project, tmp_path):
    script = tmp_path / "library.map"
    link = [[[str(project.compiler), "-shared", f"-Wl,--version-script={script}", "a.cpp", "-o", "a.so"]]]
    for shown in ("f", "g", "g"):
        script.write_text(f"{{ global: {shown}; local: *; }};")
        text = 'extern "C" int f() { return 1; } extern "C" int g() { return 2; }'
        built = build_cache.build(link, ["a.so"], {"a.cpp": text}, [script])
        command = ["nm", "-D", "--defined-only", built / "a.so"]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
        assert symbols.split()[-1] == shown
    assert project.count() == 2


@pytest.mark.parametrize("name", ["g++-for-tests", "g++-of-another-name"])
def test_what_another_compiler_built_is_not_taken(project, name):
    project.build()
    other = project.add_compiler(name, "2.0")
    assert (project.printed(compiler=other), project.count()) == ("41", 2)


def test_an_interrupted_build_is_not_taken(project):
    project.hold.touch()
    process = project.start()
    wait_for(project.calls.exists)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    project.hold.unlink()
    assert project.entries() == []
    assert (project.printed(), project.count()) == ("41", 2)


def test_a_result_that_was_damaged_is_not_taken(project):
    path = project.build()
    path.write_bytes(path.read_bytes()[:100])
    assert (project.printed(), project.count()) == ("41", 2)
    assert len(project.entries()) == 1


def test_a_source_that_changes_during_the_build_is_not_kept(project):
    project.hold.touch()
    process = project.start()
    wait_for(project.calls.exists)
    time.sleep(0.5)
    project.header.write_text("#define NUMBER 42\n")
    project.hold.unlink()
    process.communicate()
    assert (project.printed(), project.count()) == ("42", 2)


def test_two_processes_build_once(project):
    project.hold.touch()
    processes = [project.start() for _ in range(2)]
    wait_for(project.calls.exists)
    time.sleep(0.5)
    project.hold.unlink()
    first, second = (process.communicate()[0] for process in processes)
    assert first == second == f"{project.build().parent}\n"
    assert project.count() == 1


def test_a_cache_that_cannot_be_made_costs_time_only(project):
    project.cache.write_text("this is no folder")
    assert (project.printed(), project.printed()) == ("41", "41")
    assert project.count() == 2


def test_a_cache_without_space_costs_time_only(project, monkeypatch):
    def copytree(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", copytree)
    assert (project.printed(), project.count()) == ("41", 1)
    assert project.entries() == []


def test_a_command_that_fails_says_why_and_keeps_nothing(project):
    project.source.write_text("int main() { return missing; }")
    with pytest.raises(AssertionError, match=r"missing. was not declared"):
        project.build()
    assert project.entries() == []


def test_what_the_compiler_prints_is_kept(project):
    project.source.write_text("int main() { int unused; }")
    said = [build_cache.printed(project.stages("-Wall")) for _ in range(2)]
    assert "unused variable" in said[0]
    assert (said[1], project.count()) == (said[0], 1)


def test_what_was_not_used_for_long_is_removed(project, monkeypatch):
    for flag in ("-O0", "-O1"):
        project.build(flag)
    old, used = project.build("-O0").parent, project.build("-O1").parent
    for path in (old / build_cache.RECORD, used / build_cache.RECORD):
        os.utime(path, (0, 0))
    project.build("-O1")
    project.build("-O2")
    assert (old.exists(), used.exists()) == (False, True)
    monkeypatch.setattr(build_cache, "KEEP_BYTES", 1)
    project.build("-O3")
    assert project.entries() == []


def test_names_with_spaces_are_read_from_the_compilers_rule(project, tmp_path):
    folder = tmp_path / "with $ and space"
    folder.mkdir()
    project.header.rename(folder / "number.h")
    project.header = folder / "number.h"
    project.build(f"-I{folder}")
    project.header.write_text("#define NUMBER 42\n")
    assert project.printed(f"-I{folder}") == "42"


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

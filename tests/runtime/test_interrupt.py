"""Ctrl-C that comes within an import, as libraries written in C++ bring it about: they do not survive it there."""

from __future__ import annotations

import contextlib
import importlib
import signal
import subprocess
import sys
import threading

import pytest

from cornernet_runtime.cli.common import run_command
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.interrupt import InterruptWatch

FAILS_AT_AN_INTERRUPT = """
import signal
import subprocess
import sys

done = False
try:
    signal.raise_signal(signal.SIGINT)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    raise ImportError("a library takes it for its own failure") from None
done = True
"""
RUNS_A_COMMAND = """
import signal
import subprocess
import sys
from cornernet_runtime.cli.common import run_command

status = run_command(lambda: signal.raise_signal(signal.SIGINT) or 0)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return what writes a module that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    return write


def test_an_interrupt_within_an_import_comes_after_it(module, capsys):
    name, imported = module("interrupted_library", FAILS_AT_AN_INTERRUPT), []

    def work():
        imported.append(importlib.import_module(name).done)
        threading.Event().wait(60)
        raise AssertionError("the interrupt is lost")

    assert run_command(work) == 130
    assert imported == [True]
    assert capsys.readouterr().err == "interrupted\n"


def test_an_import_that_runs_a_command_does_not_keep_interrupts_from_it(module, capsys):
    assert importlib.import_module(module("interrupted_program", RUNS_A_COMMAND)).status == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_that_a_library_makes_of_an_interrupt_is_the_interrupt(capsys):
    torch = pytest.importorskip("torch")

    class Row:
        """A sequence that is being read when Ctrl-C comes."""

        def __len__(self):
            return 1

        def __getitem__(self, index):
            signal.raise_signal(signal.SIGINT)
            return 0.0

    with pytest.raises(ValueError, match="could not determine the shape"):
        torch.tensor(Row())
    assert run_command(lambda: torch.tensor(Row())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_of_ours_because_of_an_interrupt_is_the_interrupt(capsys):
    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise CornerNetError("the file cannot be read") from error

    assert run_command(work) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_error_after_an_interrupt_that_was_dealt_with_is_told():
    def work():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run_command(work)


def test_whoever_handles_interrupts_keeps_them():
    def handler(number, frame):
        """Do nothing."""

    before = signal.signal(signal.SIGINT, handler)
    try:
        with InterruptWatch(handler.__code__):
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_usual_handler_is_back_afterwards():
    with InterruptWatch(run_command.__code__):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_python_ends_changes_nothing():
    code = """
import atexit, signal, sys
from cornernet_runtime.cli.common import run_command
atexit.register(signal.raise_signal, signal.SIGINT)
sys.exit(run_command(lambda: signal.raise_signal(signal.SIGINT)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")

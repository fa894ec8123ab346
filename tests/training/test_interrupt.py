"""Ctrl-C and kills at the worst moment: what is saved, how the program ends, and that resuming gives the same bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
from cases.tiny_training import TINY, Hooked, Rectangles, Stop, coco_folder, stop
from places import SOURCE_ROOTS, SUPPORT, python_path

from cornernet_train import loop
from cornernet_train.cli import main
from cornernet_train.log import Reporter
from cornernet_train.loop import FitRequest, fit
from cornernet_train.state import load_state

RECIPE = replace(TINY, steps=6, ema_decay=0.9, save_every=2)


def trained(output, *, recipe=RECIPE, hooks=None, **request):
    """Train in this process; ``hooks`` are called as steps begin."""
    return fit(FitRequest(recipe, output, workers=0, **request), Hooked(Rectangles(), hooks or {}))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """The weights of a training that ran straight on, and what its folder held after the second step."""
    folder = tmp_path_factory.mktemp("trainings")
    straight, begun = folder / "straight", folder / "begun"
    return trained(straight, hooks={3: lambda: shutil.copytree(straight, begun)}).read_bytes(), begun


@pytest.fixture(scope="module")
def straight(trainings):
    return trainings[0]


@pytest.fixture
def begun(trainings, tmp_path):
    """A training of which two steps were done."""
    return shutil.copytree(trainings[1], tmp_path / "begun")


def interrupt():
    signal.raise_signal(signal.SIGINT)


def interrupt_twice():
    interrupt()
    interrupt()


# Interrupts.


@pytest.mark.slow
def test_an_interrupted_step_is_finished_saved_and_told_and_resumed_to_the_same_bytes(straight, begun, capsys):
    with pytest.raises(KeyboardInterrupt):
        trained(begun, hooks={1: interrupt}, resume=True)
    assert load_state(begun / "state.pt").step == 3
    assert "stopped at step 3 of 6, which is saved; --resume goes on from there\n" in capsys.readouterr().err
    assert trained(begun, resume=True).read_bytes() == straight


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait_for_the_step(straight, begun):
    with pytest.raises(KeyboardInterrupt):
        trained(begun, hooks={2: interrupt_twice}, resume=True)
    assert load_state(begun / "state.pt").step == 2
    assert trained(begun, resume=True).read_bytes() == straight


@pytest.mark.slow
def test_an_interrupt_after_the_save_of_a_step_is_heard_at_the_next(begun, monkeypatch, capsys):
    shown = Reporter.step

    def step(self, number, *given, **more):
        if number == 4:
            interrupt()
        shown(self, number, *given, **more)

    monkeypatch.setattr(Reporter, "step", step)
    with pytest.raises(KeyboardInterrupt):
        trained(begun, resume=True)
    assert load_state(begun / "state.pt").step == 5
    assert "stopped at step 5 of 6, which is saved" in capsys.readouterr().err


def test_an_interrupt_in_the_last_step_changes_nothing(straight, begun):
    assert trained(begun, hooks={4: interrupt}, resume=True).read_bytes() == straight


def test_interrupts_are_as_before_when_training_has_ended(begun):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trained(begun, hooks={1: interrupt}, resume=True)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_the_command_ends_with_130_its_workers_with_it_and_resumes_with_the_stored_recipe(tmp_path):
    data = coco_folder(tmp_path / "data")
    paths = ["fit", "--config", "cornernet-tiny", "--data", str(data)]
    flags = ["--size", "63x63", "--steps", "12", "--batch", "2", "--save-every", "2"]
    assert main([*paths, *flags, "--output", str(tmp_path / "straight")]) == 0
    output = tmp_path / "stopped"
    roots = [str(root) for root in [*SOURCE_ROOTS, SUPPORT]]
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "cornernet_train.cli", *paths, *flags, "--output", str(output)],
        env=os.environ | {"PYTHONPATH": python_path(*roots), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal interrupts the whole group, the worker too
    )
    try:
        began = time.monotonic()
        while not (output / "state.pt").exists() and process.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[1].decode()
    finally:
        process.kill()
    step = load_state(output / "state.pt").step
    assert process.returncode == 130, said
    assert said.endswith(f"stopped at step {step} of 12, which is saved; --resume goes on from there\ninterrupted\n")
    assert "Traceback" not in said
    assert main([*paths, "--output", str(output), "--resume"]) == 0
    name = "last.safetensors"
    assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


# A kill between the state and the weights.


class Killed(Exception):  # noqa: N818 - it is no error
    """Stands for a kill."""


def validated(output, points, *, killed_at=None, hooks=None, resume=False):
    """Train with a validation every second step, whose AP is the next of ``points``; ``hooks`` as for ``trained``.

    ``killed_at`` ends the program instead of writing the checkpoint file of that number.
    """
    files, write, points = [], loop.save_checkpoint, iter(points)

    def killing(*arguments):
        files.append(0)
        if len(files) == killed_at:
            raise Killed
        write(*arguments)

    data = output.parent / "validation"
    if not data.exists():
        coco_folder(data)
    recipe = replace(RECIPE, validate_every=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", killing)
        patch.setattr(loop, "validation_ap", lambda *_: next(points))
        return trained(output, recipe=recipe, validation=data, hooks=hooks, resume=resume)


# The second is the best, so the end writes the last weights but not the best.
POINTS = [30.0, 50.0, 40.0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a training that nothing killed, by how many steps were done."""
    folder = tmp_path_factory.mktemp("validated")
    output = folder / "6"
    validated(output, POINTS, hooks={step + 1: partial(shutil.copytree, output, folder / str(step)) for step in (2, 4)})
    return {step: folder / str(step) for step in (2, 4, 6)}


# A resumed training writes both files of its state before it goes on.
@pytest.mark.slow
@pytest.mark.parametrize(("begun", "file", "step"), [(0, 1, 2), (0, 2, 2), (2, 3, 4), (2, 4, 4), (4, 3, 6)])
def test_weights_that_a_kill_missed_after_the_state_are_written_on_resuming(whole, tmp_path, begun, file, step):
    output = tmp_path / "killed"
    if begun:
        shutil.copytree(whole[begun], output)
    with pytest.raises(Killed):
        validated(output, POINTS[begun // 2 :], killed_at=file, resume=begun > 0)
    assert load_state(output / "state.pt").step == step
    with contextlib.suppress(Stop):  # the last step leaves nothing to stop
        validated(output, [], hooks={1: stop}, resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        assert (output / name).read_bytes() == (whole[step] / name).read_bytes(), name


@pytest.mark.slow
def test_a_kill_between_the_first_state_and_its_weights_resumes_with_the_stored_recipe(tmp_path, monkeypatch):
    data = coco_folder(tmp_path / "data")
    command = ["fit", "--config", "cornernet-tiny", "--data", str(data), "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*command, "--size", "63x63", "--steps", "2", "--batch", "1", "--save-every", "1"])
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["config.json", "state.pt"]
    assert main([*command, "--resume"]) == 0
    assert load_state(tmp_path / "out" / "state.pt").step == 2

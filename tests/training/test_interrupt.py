"""Ctrl-C and kills at the worst moment: what is saved, how the program ends, and that resuming gives the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from cases.tiny_training import TINY, Rectangles, coco_folder
from places import SOURCE_ROOTS, SUPPORT

from cornernet_train import loop
from cornernet_train.cli import main
from cornernet_train.log import Reporter
from cornernet_train.loop import FitRequest, fit
from cornernet_train.state import load_state

RECIPE = replace(TINY, steps=6, ema_decay=0.9)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def trained(output, *, recipe=RECIPE, **request):
    return fit(FitRequest(recipe, output, workers=0, **request), Rectangles())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("straight")).read_bytes()


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that has something done within a step, before its gradients."""

    def plan(step, act):
        calls, gradients = [], loop.gradients

        def acting(*arguments):
            calls.append(0)
            if len(calls) == step:
                act()
            return gradients(*arguments)

        monkeypatch.setattr(loop, "gradients", acting)

    return plan


def interrupt():
    signal.raise_signal(signal.SIGINT)


def interrupt_twice():
    interrupt()
    interrupt()


# Interrupts.


@pytest.mark.slow
def test_an_interrupted_step_is_finished_saved_and_told_and_resumed_to_the_same_bytes(
    straight, at_step, tmp_path, capsys
):
    at_step(3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    assert load_state(tmp_path / "state.pt").step == 3
    assert "stopped at step 3 of 6, which is saved; --resume goes on from there\n" in capsys.readouterr().err
    assert trained(tmp_path, resume=True).read_bytes() == straight


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait_for_the_step(straight, at_step, tmp_path):
    at_step(4, interrupt_twice)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, recipe=replace(RECIPE, save_every=2))
    assert load_state(tmp_path / "state.pt").step == 2
    assert trained(tmp_path, recipe=replace(RECIPE, save_every=2), resume=True).read_bytes() == straight


def test_an_interrupt_after_the_save_of_a_step_is_heard_at_the_next(monkeypatch, tmp_path, capsys):
    shown = Reporter.step

    def step(self, number, *given, **more):
        if number == 2:
            interrupt()
        shown(self, number, *given, **more)

    monkeypatch.setattr(Reporter, "step", step)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
    assert load_state(tmp_path / "state.pt").step == 3
    assert "stopped at step 3 of 6, which is saved" in capsys.readouterr().err


def test_an_interrupt_in_the_last_step_changes_nothing(straight, at_step, tmp_path):
    at_step(6, interrupt)
    assert trained(tmp_path).read_bytes() == straight


def test_interrupts_are_as_before_when_training_has_ended(at_step, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    at_step(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path)
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
        env=os.environ | {"PYTHONPATH": os.pathsep.join(roots), "OMP_NUM_THREADS": "1"},
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


def validated(output, points, *, killed_at=None, resume=False):
    """Train with a validation every second step, whose AP is the next of ``points``.

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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", killing)
        patch.setattr(loop, "validation_ap", lambda *_: next(points))
        return trained(output, recipe=replace(RECIPE, validate_every=2), validation=data, resume=resume)


# The second is the best, so the end writes the last weights but not the best.
POINTS = [30.0, 50.0, 40.0]


@pytest.fixture(scope="module")
def straight_best(tmp_path_factory):
    output = tmp_path_factory.mktemp("validated") / "straight"
    validated(output, POINTS)
    return output


@pytest.mark.slow
@pytest.mark.parametrize(("file", "step"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 6)])
def test_weights_that_a_kill_missed_after_the_state_are_written_on_resuming(straight_best, tmp_path, file, step):
    output = tmp_path / "killed"
    with pytest.raises(Killed):
        validated(output, POINTS, killed_at=file)
    assert load_state(output / "state.pt").step == step
    validated(output, POINTS[step // 2 :], resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        assert (output / name).read_bytes() == (straight_best / name).read_bytes(), name


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

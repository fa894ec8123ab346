"""Training that was stopped, killed or starved goes on where it was, bit for bit, or says why it cannot."""

from __future__ import annotations

import csv
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import tiny_training
from cases.tiny_training import TINY, Hooked, Rectangles, Stop, killable, stop
from places import SOURCE_ROOTS, SUPPORT, python_path

from cornernet_export.checkpoint import load_checkpoint
from cornernet_runtime.errors import CheckpointError, CornerNetError, OutputError
from cornernet_train import loop
from cornernet_train.loop import FitRequest, fit
from cornernet_train.recipe import Augmentation
from cornernet_train.state import load_state

# Odd numbers, so that the log's means and the rounds of pictures are interrupted in their middle.
RECIPE = replace(
    TINY,
    steps=9,
    save_every=4,
    ema_decay=0.9,
    augmentation=Augmentation(scales=(0.6, 1.4), flip=0.5, jitter=0.4, lighting=0.1),
)
PICTURES = 5


def trained(output, *, recipe=RECIPE, hooks=None, **request):
    """Train; ``hooks`` are called as steps begin."""
    pictures = Rectangles(PICTURES) if hooks is None else Hooked(Rectangles(PICTURES), hooks)
    workers = 1 if hooks is None else 0
    return fit(FitRequest(recipe, output, workers=workers, **request), pictures)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A training that ran straight on, and what its folder held as the seventh step began."""
    folder = tmp_path_factory.mktemp("trainings")
    straight, stopped = folder / "straight", folder / "stopped"
    trained(straight, hooks={7: lambda: shutil.copytree(straight, stopped)})
    return straight, stopped


@pytest.fixture(scope="module")
def straight(folders):
    return folders[0]


@pytest.fixture(scope="module")
def stopped(folders):
    """A folder whose training ended in its seventh step, after the save of the fourth."""
    return folders[1]


def equal(first, second):
    """Say whether two trees of containers hold the same, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


def losses(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [[value for name, value in row.items() if name != "elapsed_s"] for row in csv.DictReader(file)]


# Bit for bit.


@pytest.mark.slow
def test_a_stopped_and_resumed_training_ends_like_a_straight_one_bit_for_bit(straight, stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "resumed")
    assert load_state(output / "state.pt").step == 4
    trained(output, resume=True)
    first, second = (load_state(folder / "state.pt") for folder in (straight, output))
    assert first.step == second.step == RECIPE.steps
    for name in ("identity", "model", "average", "optimizer", "best_ap", "unreadable", "random"):
        assert equal(getattr(first, name), getattr(second, name)), name
    assert (straight / "last.safetensors").read_bytes() == (output / "last.safetensors").read_bytes()
    assert losses(straight) == losses(output)


@pytest.mark.slow
def test_a_training_may_be_stopped_again_and_again(straight, stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "resumed")
    for stop_at in (1, 2, 5):
        with pytest.raises(Stop):
            trained(output, hooks={stop_at: stop}, resume=True)
    trained(output, resume=True)
    assert (straight / "last.safetensors").read_bytes() == (output / "last.safetensors").read_bytes()


@pytest.mark.slow
def test_a_finished_training_is_resumed_without_a_step(straight, tmp_path):
    output = shutil.copytree(straight, tmp_path / "again")
    assert trained(output, hooks={1: stop}, resume=True) == output / "last.safetensors"
    assert (straight / "last.safetensors").read_bytes() == (output / "last.safetensors").read_bytes()


def test_the_running_mean_differs_from_the_weights_and_is_what_ships(straight):
    state = load_state(straight / "state.pt")
    shipped = load_checkpoint(straight / "last.safetensors").model.state_dict()
    name = "stem.0.0.weight"
    assert torch.equal(shipped[name], state.average[name])
    assert not torch.equal(shipped[name], state.model[name])


@pytest.mark.slow
def test_training_goes_on_after_a_loss_that_was_not_finite(straight, stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "resumed")
    gradients, calls = loop.gradients, []

    def failing(*arguments):
        calls.append(0)
        parts, norm = gradients(*arguments)
        return parts, math.nan if len(calls) == 2 else norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "gradients", failing)
        said = r"step 6: .* on rectangle \d, rectangle \d; the weights of the last save stay in "
        with pytest.raises(CornerNetError, match=said):
            trained(output, resume=True)
    assert load_state(output / "state.pt").step == 4
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(output / "last.safetensors").model.parameters())
    trained(output, resume=True)
    assert (straight / "last.safetensors").read_bytes() == (output / "last.safetensors").read_bytes()


# What is refused.


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"learning_rate": 1e-3}, "recipe.learning_rate was 0.0025 and is now 0.001"),
        ({"steps": 10, "seed": 2}, "recipe.seed was 1 and is now 2; recipe.steps was 9 and is now 10"),
        ({"augmentation": replace(RECIPE.augmentation, flip=0.0)}, "recipe.augmentation.flip was 0.5 and is now 0.0"),
    ],
)
def test_another_recipe_is_refused_and_the_difference_said(stopped, tmp_path, changed, said):
    output = shutil.copytree(stopped, tmp_path / "other")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(CornerNetError) as caught:
        trained(output, recipe=replace(RECIPE, **changed), resume=True)
    assert f"cannot resume with another configuration: {said}; give what was given then" in str(caught.value)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_other_pictures_are_refused(stopped, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "other")
    others = Rectangles(PICTURES)
    others.identity = "others"
    with pytest.raises(CornerNetError, match="configuration: pictures was rectangles and is now others; give"):
        fit(FitRequest(RECIPE, output, resume=True), others)


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(OutputError, match=r"state\.pt: no such file, so there is nothing to resume"):
        trained(tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused(stopped, tmp_path, part):
    output = shutil.copytree(stopped, tmp_path / "cut")
    content = (output / "state.pt").read_bytes()
    (output / "state.pt").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match=r"state\.pt: not a whole training state"):
        trained(output, resume=True)


def test_a_state_that_would_execute_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"version": 1, "step": Evil()}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="not a whole training state"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "executed").exists()


def test_another_file_of_tensors_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="not a training state of this version"):
        load_state(tmp_path / "state.pt")


# SIGKILL.


def start(output):
    paths = [*SOURCE_ROOTS, SUPPORT]
    environment = os.environ | {"PYTHONPATH": python_path(*paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, tiny_training.__file__, str(output)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_resumes_to_the_same_end_and_truncates_nothing(tmp_path):
    killable(tmp_path / "straight", resume=False)
    output, chance, seen = tmp_path / "killed", np.random.default_rng(0), set()
    for _ in range(4):
        process = start(output)
        # Somewhere within the next few steps and saves, counted from the first file that changes.
        before, began = _stamp(output), time.monotonic()
        while _stamp(output) == before and process.poll() is None and time.monotonic() - began < 60:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0), process.stderr.read().decode()
        process.stderr.close()
        if (output / "state.pt").exists():
            seen.add(load_state(output / "state.pt").step)
        for path in output.glob("*.safetensors"):
            load_checkpoint(path)
    assert len(seen) >= 2
    last = start(output)
    assert last.wait(timeout=120) == 0, last.stderr.read().decode()
    last.stderr.close()
    name = "last.safetensors"
    assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []


def _stamp(output):
    path = output / "state.pt"
    return path.stat().st_mtime_ns if path.exists() else None


# A full disk.


@pytest.mark.slow
@pytest.mark.parametrize(("full_from", "file"), [("the beginning", "last.safetensors"), ("the first step", "state.pt")])
def test_a_disk_that_fills_up_ends_training_and_leaves_the_last_save_whole(
    straight, stopped, tmp_path, full_from, file
):
    output = shutil.copytree(stopped, tmp_path / "full")
    saved = {path.name: path.read_bytes() for path in output.iterdir() if path.name != "log.csv"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The largest file that may be written is as small as a nearly full disk allows.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))

    try:
        if full_from == "the beginning":
            fill()
        with pytest.raises(OutputError, match=rf"cannot write .*{re.escape(file)}: File too large"):
            trained(output, hooks={1: fill}, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.name in saved} == saved
    assert {path.name for path in output.iterdir()} <= saved.keys() | {"log.csv"}
    trained(output, resume=True)
    assert (straight / "last.safetensors").read_bytes() == (output / "last.safetensors").read_bytes()

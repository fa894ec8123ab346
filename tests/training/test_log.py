"""What training tells: the log, the plot, the share of time that it waits."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time

import cv2
import pytest
import torch
from places import python_path

from cornernet_runtime.errors import OutputError
from cornernet_train.log import COLUMNS, Reporter, TrainingLog, plot_log
from cornernet_train.losses import Losses


def losses(value):
    return Losses(*(torch.tensor(value * factor) for factor in (1.0, 0.1, 0.2, 0.3)))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_is_the_mean_since_the_last(tmp_path):
    training = TrainingLog(tmp_path / "log.csv", every=4)
    made = [training.add(step, losses(float(step)), 0.5, last=step == 6) for step in range(1, 7)]
    assert made == [False, False, False, True, False, True]
    found = rows(tmp_path / "log.csv")
    assert [row["step"] for row in found] == ["4", "6"]
    assert [row["detection"] for row in found] == ["2.5000", "5.5000"]
    assert [row["offset"] for row in found] == ["0.7500", "1.6500"]
    assert {row["learning_rate"] for row in found} == {"0.5"}


def test_ap_stands_beside_the_row_of_its_step(tmp_path):
    training = TrainingLog(tmp_path / "log.csv", every=4)
    training.add(1, losses(1.0), 0.5, last=True)
    training.add_ap(61.2345)
    training.add(2, losses(2.0), 0.5, last=True)
    assert [row["ap"] for row in rows(tmp_path / "log.csv")] == ["61.23", ""]
    assert training.summary() == "detection 2.0000 pull 0.2000 push 0.4000 offset 0.6000 AP 61.23"


@pytest.mark.parametrize("stop", range(1, 11))
def test_a_log_that_is_taken_up_anywhere_ends_as_if_it_had_never_been_put_down(tmp_path, stop):
    straight, first = TrainingLog(tmp_path / "straight.csv", every=4), TrainingLog(tmp_path / "log.csv", every=4)
    for step in range(1, 11):
        straight.add(step, losses(float(step)), 0.5, last=step == 10)
        if step <= stop:
            first.add(step, losses(float(step)), 0.5, last=step == 10)
    second = TrainingLog(tmp_path / "log.csv", first.state(), every=4)
    for step in range(stop + 1, 11):
        second.add(step, losses(float(step)), 0.5, last=step == 10)
    assert (tmp_path / "log.csv").read_text() == (tmp_path / "straight.csv").read_text()


def test_elapsed_time_counts_what_was_before(tmp_path):
    training = TrainingLog(tmp_path / "log.csv", {"recent": [], "rows": [], "elapsed_s": 1000.0})
    assert 1000 <= training.elapsed_s < 1010


# The plot.


def curve(path, *, ap):
    training = TrainingLog(path)
    for step in range(1, 201):
        training.add(step, losses(10 / step), 0.5, last=False)
        if ap and step % 100 == 0:
            training.add_ap(step / 4)


def test_the_plot_is_a_picture_with_a_curve_for_each_loss_and_for_ap(tmp_path):
    counts = []
    for ap in (False, True):
        curve(tmp_path / "log.csv", ap=ap)
        plot_log(tmp_path / "log.csv", tmp_path / "log.png")
        picture = cv2.imread(str(tmp_path / "log.png"))
        assert picture.shape == (540, 1080, 3)
        # Five colours of matplotlib's cycle make the losses; BGR.
        for colour in ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214)):
            assert (picture == colour).all(2).sum() > 50
        counts.append(int((picture == 0).all(2).sum()))
    # The curve of AP is black, with its axis.
    assert counts[1] > counts[0] + 100


def test_an_empty_log_is_plotted_too(tmp_path):
    (tmp_path / "log.csv").write_text(",".join(COLUMNS) + "\n")
    plot_log(tmp_path / "log.csv", tmp_path / "log.png")
    assert cv2.imread(str(tmp_path / "log.png")) is not None


@pytest.mark.slow
def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    curve(tmp_path / "log.csv", ap=False)
    program = (
        "import sys; sys.modules['matplotlib'] = None; from pathlib import Path;"
        "from cornernet_train.log import plot_log; plot_log(*map(Path, sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "log.csv"), str(tmp_path / "log.png")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=_environment())  # noqa: S603
    assert OutputError.__name__ in done.stderr
    assert "matplotlib is not installed; pip install matplotlib" in done.stderr
    assert not (tmp_path / "log.png").exists()


def _environment():
    return os.environ | {"PYTHONPATH": python_path(*sys.path)}


# What people read meanwhile.


def test_waiting_is_a_part_of_the_time_since_the_start():
    reporter = Reporter(steps=10, done=0)
    time.sleep(0.2)
    reporter.waited(0.05)
    assert 0.05 <= reporter.waiting <= 0.25


def test_lines_say_step_losses_time_left_and_waiting(capsys):
    with Reporter(steps=20, done=5) as reporter:
        for step in range(6, 21):
            reporter.step(step, "detection 1.0000", row=True)
    said = capsys.readouterr().err.splitlines()
    # The first, each fifth after it, and the last.
    assert [line.split(",")[0] for line in said] == [f"step {step} of 20" for step in (6, 11, 16, 20)]
    assert said[-1] == "step 20 of 20, 0.0 min left: detection 1.0000 waiting 0.0%"

"""The training loop on small inputs: what it writes, that it learns, that it can be repeated, how it fails."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.tiny_training import TINY, Hooked, Rectangles

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model import CornerNet, preset
from cornernet_export.torch_backend.cpu import open_checkpoint
from cornernet_runtime.bundle.records import from_json
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.errors import CornerNetError, FrameError, OutputError
from cornernet_train import loop
from cornernet_train.data import Examples, batches, collate
from cornernet_train.loop import FitRequest, fit
from cornernet_train.recipe import Recipe
from cornernet_train.state import load_state

STEPS = TINY.steps
BEGUN = 12  # steps after which trainings that may differ at their end only begin
SHORT = replace(TINY, steps=1)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Two runs of one recipe, whose logs have a row for every step and for every five; and the first near its end."""
    folder = tmp_path_factory.mktemp("trainings")
    first, second, begun = folder / "first", folder / "second", folder / "begun"
    pictures = Hooked(Rectangles(), {BEGUN: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):  # after that step, which is saved
        trained(first, pictures=pictures, workers=0, log_every=1)
    shutil.copytree(first, begun)
    trained(first, log_every=1, resume=True)
    trained(second, log_every=5)
    return first, second, begun


@pytest.fixture(scope="module")
def runs(trainings):
    """Two runs of one recipe: an interrupted one that logs every step, and a straight one that logs every five."""
    return trainings[:2]


@pytest.fixture
def begun(trainings, tmp_path):
    """A training of ``BEGUN`` steps."""
    return shutil.copytree(trainings[2], tmp_path / "begun")


def trained(folder, recipe=TINY, pictures=None, **request):
    return fit(FitRequest(recipe, folder, **request), pictures or Rectangles())


def weights(path):
    return load_checkpoint(path).model.state_dict()


def rows(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# What is written.


def test_the_folder_holds_checkpoint_state_config_log_and_plot(runs):
    names = ["config.json", "last.safetensors", "log.csv", "log.png", "state.pt"]
    assert sorted(path.name for path in runs[0].iterdir()) == names


def test_the_config_says_how_and_on_what(runs):
    config = json.loads((runs[0] / "config.json").read_text())
    assert from_json(Recipe, config.pop("recipe")) == TINY
    expected = {"class_names": ["wide", "tall"], "pictures": "rectangles", "validation": None, "checkpoint": None}
    assert config == expected


def test_fit_returns_the_path_of_the_checkpoint(tmp_path):
    assert trained(tmp_path / "new" / "deep", SHORT) == tmp_path / "new/deep/last.safetensors"


def test_the_checkpoint_says_how_the_network_was_trained(runs):
    spec = load_checkpoint(runs[0] / "last.safetensors").spec
    assert spec.class_names == ("wide", "tall")
    assert (spec.stride, spec.modulus) == (4, 32)
    assert spec.input_size == spec.largest_size == (63, 63)


def test_the_checkpoint_detects_in_frames_of_any_size(runs):
    with open_checkpoint(runs[0] / "last.safetensors") as detector:
        detections = detector(np.full((90, 50, 3), 128, np.uint8))
    assert np.isfinite(detections.boxes).all()
    assert detections.class_names == ("wide", "tall")


def test_every_weight_has_moved_from_where_it_began(runs, tmp_path):
    begun = weights(trained(tmp_path, replace(SHORT, learning_rate=1e-30)))
    ended = weights(runs[0] / "last.safetensors")
    assert [name for name in begun if "num_batches" not in name and torch.equal(begun[name], ended[name])] == []


def test_the_log_has_a_row_of_means_for_each_so_many_steps(runs):
    each, fives = rows(runs[0]), rows(runs[1])
    columns = ["step", "detection", "pull", "push", "offset", "learning_rate", "elapsed_s", "ap"]
    assert list(each[0]) == list(fives[0]) == columns
    assert [row["step"] for row in each] == list(range(1, STEPS + 1))
    assert [row["step"] for row in fives] == [5, 10, 15]
    for name in columns[1:5]:
        means = np.array([row[name] for row in each]).reshape(3, 5).mean(1)
        # Both are written with four decimals.
        np.testing.assert_allclose([row[name] for row in fives], means, rtol=0, atol=1.01e-4)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing(runs):
    rates = [row["learning_rate"] for row in rows(runs[0])]
    # A tenth of the schedule rises.
    assert np.argmax(rates) <= 2
    assert max(rates) == pytest.approx(TINY.learning_rate, rel=0.02)
    assert rates[-1] < TINY.learning_rate / 20


def test_a_run_shorter_than_a_window_is_logged_too(tmp_path):
    trained(tmp_path, replace(SHORT, steps=2))
    assert [row["step"] for row in rows(tmp_path)] == [2]


# What is learnt.


def test_the_loss_of_a_fixed_set_falls(runs):
    totals = [sum(row[name] for name in ("detection", "pull", "push", "offset")) for row in rows(runs[0])]
    assert np.mean(totals[-3:]) < np.mean(totals[:3]) / 2


@pytest.mark.slow
def test_bfloat16_learns_too_and_otherwise(runs, tmp_path):
    path = trained(tmp_path, replace(TINY, bfloat16=True), log_every=5)
    detection = [row["detection"] for row in rows(tmp_path)]
    assert detection[-1] < detection[0] / 2
    assert {tensor.dtype for name, tensor in weights(path).items() if "num_batches" not in name} == {torch.float32}
    assert not same(weights(path), weights(runs[0] / "last.safetensors"))  # those of float32


def gradients_of_steps(recipe, steps):
    """Return the gradients after so many steps that change no weight."""
    torch.manual_seed(0)
    model = CornerNet(preset("cornernet-tiny", classes=2)).train()
    spec = ModelSpec("x", Rectangles.class_names, 4, 32, (63, 63), (63, 63))
    batch = collate([Examples(Rectangles(), spec)[index] for index in range(2)])
    for _ in range(steps):
        loop.gradients(model, batch, recipe)
    return [parameter.grad for parameter in model.parameters()]


def test_gradients_do_not_add_up_over_steps():
    once, twice = (gradients_of_steps(replace(TINY, gradient_norm=1e9), steps) for steps in (1, 2))
    assert all(torch.equal(first, second) for first, second in zip(once, twice, strict=True))


def test_gradients_are_scaled_down_to_the_norm_of_the_recipe_and_never_up():
    loose, tight = (gradients_of_steps(replace(TINY, gradient_norm=norm), 1) for norm in (1e9, 0.5))
    norms = [math.sqrt(sum(float(part.double().square().sum()) for part in parts)) for parts in (loose, tight)]
    assert norms[0] > 1
    # PyTorch divides by the norm plus 1e-6.
    assert norms[1] == pytest.approx(0.5, rel=1e-4)


# What can be repeated.


def test_the_same_recipe_gives_the_same_weights_bit_for_bit(runs):
    first, second = (weights(folder / "last.safetensors") for folder in runs)
    assert first.keys() == second.keys()
    assert same(first, second)


def test_the_same_recipe_gives_the_same_file(runs):
    assert len({(folder / "last.safetensors").read_bytes() for folder in runs}) == 1


@pytest.mark.slow
def test_another_seed_gives_other_weights(tmp_path):
    first, second = (weights(trained(tmp_path / str(seed), replace(SHORT, seed=seed))) for seed in (1, 2))
    assert not same(first, second)


def test_there_are_as_many_batches_as_steps_however_few_pictures():
    recipe = replace(TINY, steps=3, batch=4)
    spec = ModelSpec("x", Rectangles.class_names, 4, 32, (63, 63), (63, 63))
    assert [len(batch.images) for batch in batches(recipe, Rectangles(1), spec)] == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_does_not_matter(runs, begun, workers):
    assert same(weights(runs[0] / "last.safetensors"), weights(trained(begun, workers=workers, resume=True)))


# Pictures that cannot be read.


class Spoilt(Rectangles):
    """Every third picture is broken."""

    def __getitem__(self, index):
        if index % 3 == 2:
            raise FrameError(f"picture {index} cannot be decoded")
        return super().__getitem__(index % 3)


class Unreadable(Rectangles):
    def __getitem__(self, index):
        raise FrameError(f"picture {index + 2} cannot be decoded")

    def __len__(self):
        return 1


def test_a_broken_picture_is_named_counted_and_left_out(tmp_path, capsys):
    trained(tmp_path, replace(TINY, steps=3, batch=3), Spoilt(3))
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if "left out" in line] == [
        "note: left out, number 1: picture 2 cannot be decoded",
        "note: left out, number 2: picture 2 cannot be decoded",
        "note: left out, number 3: picture 2 cannot be decoded",
        "note: 3 times a picture could not be read and was left out",
    ]


def test_a_broken_picture_ends_a_strict_training_without_a_traceback_of_the_worker(tmp_path):
    with pytest.raises(FrameError) as caught:
        trained(tmp_path, replace(TINY, steps=3, batch=3), Spoilt(3), strict=True)
    assert str(caught.value) == "picture 2 cannot be decoded"


def test_a_set_of_broken_pictures_is_an_error_that_names_one(tmp_path):
    with pytest.raises(FrameError, match=r"^no picture can be read; the last: picture 2 cannot be decoded$"):
        trained(tmp_path, replace(TINY, steps=1, batch=1), Unreadable())
    assert not (tmp_path / "last.safetensors").exists()


@pytest.mark.slow
def test_a_batch_of_broken_pictures_is_a_step_in_which_nothing_is_learned(tmp_path, monkeypatch):
    # One picture a step: each of the three comes once, in whatever order, and the broken one learns nothing.
    learned, gradients = [], loop.gradients
    monkeypatch.setattr(loop, "gradients", lambda *given: learned.append(given[1].names) or gradients(*given))
    trained(tmp_path, replace(TINY, steps=3, batch=1), Spoilt(3), log_every=1)
    assert sorted(learned) == [("rectangle 0",), ("rectangle 1",)]
    state = load_state(tmp_path / "state.pt")
    assert (state.step, state.unreadable) == (3, 1)
    # AdamW counts its own steps.
    assert {float(entry["step"]) for entry in state.optimizer["state"].values()} == {2.0}
    assert len(rows(tmp_path)) == 2


# How else it fails.


def test_a_loss_that_is_not_finite_stops_training_and_leaves_no_checkpoint(tmp_path):
    with pytest.raises(CornerNetError, match=r"step \d: .* is no longer finite, on rectangle \d, rectangle \d;"):
        trained(tmp_path, replace(TINY, steps=9, learning_rate=1e30))
    assert sorted(path.name for path in tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_before_any_work(tmp_path):
    with pytest.raises(CornerNetError, match="PyTorch finds no GPU here"):
        trained(tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_an_error_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot make the folder"):
        trained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["state.pt", "last.safetensors", "best.safetensors"])
def test_a_folder_that_holds_a_training_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="exists: add --resume to go on with it, or choose another folder"):
        trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"

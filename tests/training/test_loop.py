"""The training loop on small inputs: what it writes, that it learns, that it can be repeated, how it fails."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model import CornerNet, preset
from cornernet_export.torch_backend import open_checkpoint
from cornernet_runtime.errors import CornerNetError, OutputError
from cornernet_runtime.spec import ModelSpec
from cornernet_train import loop
from cornernet_train.cli import main
from cornernet_train.data import Examples, ShapeScenes, collate
from cornernet_train.loop import RECIPES, Recipe, fit
from cornernet_train.shapes import CLASS_NAMES, Scene

STEPS = 15
TINY = Recipe(
    arch="cornernet-tiny",
    input_size=(63, 63),
    steps=STEPS,
    batch=2,
    learning_rate=2.5e-3,
    weight_decay=0.01,
    gradient_norm=5.0,
    bfloat16=False,
    seed=1,
)
SHORT = replace(TINY, steps=1)


class Rectangles:
    """Pictures of the input's size with one bright rectangle each; fast to make, and easy to learn."""

    class_names = ("wide", "tall")

    def __init__(self, count=2):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        # Four pixels are a cell.
        box = [8 + 4 * index, 20, 56, 40] if index % 2 == 0 else [20, 6 + 4 * index, 44, 58]
        image = np.full((63, 63, 3), 40, np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 220
        return Scene(image, np.array([box], np.float32), np.array([index % 2], np.int64))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """One thread suffices here, and two would wait for each other on a busy machine. ``fit`` flushes denormals."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one recipe, whose logs have a row for every step and for every five."""
    folders = []
    with pytest.MonkeyPatch.context() as patch:
        for every in (1, 5):
            patch.setattr(loop, "LOG_EVERY", every)
            folders.append(tmp_path_factory.mktemp("fit"))
            fit(TINY, Rectangles(), folders[-1])
    return folders


def weights(path):
    return load_checkpoint(path).model.state_dict()


def rows(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# What is written.


def test_the_checkpoint_is_named_after_the_network_and_nothing_else_is_left_but_the_log(runs):
    assert sorted(path.name for path in runs[0].iterdir()) == ["cornernet-tiny.safetensors", "log.csv"]


def test_fit_returns_the_path_of_the_checkpoint(tmp_path):
    assert fit(SHORT, Rectangles(), tmp_path / "new" / "deep") == tmp_path / "new/deep/cornernet-tiny.safetensors"


def test_the_checkpoint_says_how_the_network_was_trained(runs):
    spec = load_checkpoint(runs[0] / "cornernet-tiny.safetensors").spec
    assert spec.class_names == ("wide", "tall")
    assert (spec.stride, spec.modulus) == (4, 32)
    assert spec.input_size == spec.largest_size == (63, 63)


def test_the_checkpoint_detects_in_frames_of_any_size(runs):
    with open_checkpoint(runs[0] / "cornernet-tiny.safetensors") as detector:
        detections = detector(np.full((90, 50, 3), 128, np.uint8))
    assert np.isfinite(detections.boxes).all()
    assert detections.class_names == ("wide", "tall")


def test_every_weight_has_moved_from_where_it_began(runs, tmp_path):
    begun = weights(fit(replace(SHORT, learning_rate=1e-30), Rectangles(), tmp_path))
    ended = weights(runs[0] / "cornernet-tiny.safetensors")
    assert [name for name in begun if "num_batches" not in name and torch.equal(begun[name], ended[name])] == []


def test_the_log_has_a_row_of_means_for_each_so_many_steps(runs):
    each, fives = rows(runs[0]), rows(runs[1])
    columns = ["step", "detection", "pull", "push", "offset", "learning_rate", "elapsed_s"]
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
    fit(replace(SHORT, steps=2), Rectangles(), tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [2]


# What is learnt.


def test_the_loss_of_a_fixed_set_falls(runs):
    totals = [sum(row[name] for name in ("detection", "pull", "push", "offset")) for row in rows(runs[0])]
    assert np.mean(totals[-3:]) < np.mean(totals[:3]) / 2


def test_bfloat16_learns_too(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 5)
    path = fit(replace(TINY, bfloat16=True), Rectangles(), tmp_path)
    detection = [row["detection"] for row in rows(tmp_path)]
    assert detection[-1] < detection[0] / 2
    assert {tensor.dtype for name, tensor in weights(path).items() if "num_batches" not in name} == {torch.float32}


def gradients_of_steps(recipe, steps):
    """Return the gradients after so many steps that change no weight."""
    torch.manual_seed(0)
    model = CornerNet(preset("cornernet-tiny", classes=2)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    spec = ModelSpec("x", Rectangles.class_names, 4, 32, (63, 63), (63, 63))
    batch = collate([Examples(Rectangles(), spec)[index] for index in range(2)])
    for _ in range(steps):
        loop._step(model, optimizer, *batch, recipe)
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
    first, second = (weights(folder / "cornernet-tiny.safetensors") for folder in runs)
    assert first.keys() == second.keys()
    assert same(first, second)


def test_the_same_recipe_gives_the_same_file(runs):
    assert len({(folder / "cornernet-tiny.safetensors").read_bytes() for folder in runs}) == 1


def test_another_seed_gives_other_weights(tmp_path):
    first, second = (weights(fit(replace(SHORT, seed=seed), Rectangles(), tmp_path / str(seed))) for seed in (1, 2))
    assert not same(first, second)


def test_every_picture_is_seen_before_any_is_seen_again():
    recipe = replace(TINY, steps=6, batch=1)
    spec = ModelSpec("x", Rectangles.class_names, 4, 32, (63, 63), (63, 63))
    seen = [int(targets.tl_cells[0, 0]) for _, targets in loop._batches(recipe, Rectangles(3), spec)]
    assert len(set(seen[:3])) == 3
    assert set(seen[3:]) == set(seen[:3])


def test_there_are_as_many_batches_as_steps_however_few_pictures():
    recipe = replace(TINY, steps=3, batch=4)
    spec = ModelSpec("x", Rectangles.class_names, 4, 32, (63, 63), (63, 63))
    assert [len(images) for images, _ in loop._batches(recipe, Rectangles(1), spec)] == [4, 4, 4]


def test_shipped_recipes_name_networks_and_sizes_that_fit():
    for recipe in RECIPES.values():
        config = preset(recipe.arch, classes=len(CLASS_NAMES))
        ModelSpec(
            config.name, CLASS_NAMES, config.stride, config.modulus, recipe.input_size, recipe.input_size
        )  # raises where the size does not fit the modulus


# How it fails.


def test_a_loss_that_is_not_finite_stops_training_and_leaves_no_checkpoint(tmp_path):
    with pytest.raises(CornerNetError, match="the loss is no longer finite; lower the learning rate"):
        fit(replace(TINY, steps=4, learning_rate=1e30), Rectangles(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_kept_from_before_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    step, done = loop._step, []

    def failing(*arguments):
        if len(done) == 3:
            raise CornerNetError("the loss is no longer finite")
        done.append(step(*arguments))
        return done[-1]

    monkeypatch.setattr(loop, "_step", failing)
    with pytest.raises(CornerNetError):
        fit(replace(TINY, steps=5), Rectangles(), tmp_path)
    assert load_checkpoint(tmp_path / "cornernet-tiny.safetensors").spec.class_names == ("wide", "tall")


def test_an_output_that_is_a_file_is_an_error_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot make the folder"):
        fit(TINY, Rectangles(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# The command.


def command(data, output):
    return main(["fit", "--config", "cornernet-tiny", "--data", str(data), "--output", str(output)])


@pytest.fixture
def short_recipe(monkeypatch):
    monkeypatch.setitem(RECIPES, "cornernet-tiny", SHORT)


@pytest.mark.usefixtures("short_recipe")
def test_the_command_prints_the_checkpoint_and_nothing_else(tmp_path, capsys):
    assert command("shapes", tmp_path / "out") == 0
    path = tmp_path / "out" / "cornernet-tiny.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    assert load_checkpoint(path).spec.class_names == CLASS_NAMES


@pytest.mark.usefixtures("short_recipe")
def test_the_word_shapes_trains_on_fresh_scenes_of_the_recipe_seed(tmp_path):
    assert command("shapes", tmp_path / "command") == 0
    expected = weights(fit(SHORT, ShapeScenes(SHORT.seed, SHORT.batch), tmp_path / "direct"))
    assert same(expected, weights(tmp_path / "command" / "cornernet-tiny.safetensors"))


def coco_folder(folder, content):
    """Write a set of one picture, ``content`` bytes long or a picture where that is None."""
    (folder / "images").mkdir(parents=True)
    picture = cv2.imencode(".png", Rectangles()[0].image)[1].tobytes() if content is None else content
    (folder / "images" / "only.png").write_bytes(picture)
    annotations = {
        "images": [{"id": 1, "file_name": "only.png"}],
        "categories": [{"id": 5, "name": "wide"}, {"id": 9, "name": "tall"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [8, 20, 48, 20]}],
    }
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


@pytest.mark.usefixtures("short_recipe")
def test_a_folder_in_coco_format_gives_the_classes_their_names(tmp_path):
    assert command(coco_folder(tmp_path / "data", None), tmp_path / "out") == 0
    spec = load_checkpoint(tmp_path / "out" / "cornernet-tiny.safetensors").spec
    assert spec.class_names == ("wide", "tall")


def test_a_missing_data_folder_is_one_line_and_status_1(tmp_path, capsys):
    assert command(tmp_path / "missing", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {tmp_path / 'missing' / 'annotations.json'}: ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("short_recipe")
def test_a_broken_picture_is_status_1_and_leaves_no_checkpoint(tmp_path, capsys):
    data = coco_folder(tmp_path / "data", b"no picture")
    assert command(data, tmp_path / "out") == 1
    assert f"{data / 'images' / 'only.png'}: cannot be decoded as a picture" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("short_recipe")
def test_a_broken_picture_is_reported_without_a_traceback(tmp_path, capsys):
    command(coco_folder(tmp_path / "data", b"no picture"), tmp_path / "out")
    said = capsys.readouterr().err
    assert f"error: {tmp_path / 'data' / 'images' / 'only.png'}: cannot be decoded as a picture\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "cornernet-huge", "--data", "shapes", "--output", "out"],
        ["--config", "cornernet-tiny", "--data", "shapes"],
        ["--config", "cornernet-tiny", "--output", "out"],
    ],
)
def test_wrong_usage_is_status_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["fit", *arguments])
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []

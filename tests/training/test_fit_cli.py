"""``cornernet-train fit``: what it prints and writes, what each flag changes, what it refuses."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import published_layouts
from cases.tiny_training import TINY, coco_folder

from cornernet_export.checkpoint import load_checkpoint
from cornernet_train import cli, loop
from cornernet_train.cli import main
from cornernet_train.loop import FitRequest, fit
from cornernet_train.pictures import CocoPictures, ShapeScenes
from cornernet_train.recipe import ORIGINAL_AUGMENTATION, RECIPES
from cornernet_train.shapes import CLASS_NAMES
from cornernet_train.state import load_state

SHORT = replace(TINY, steps=1, augmentation=ORIGINAL_AUGMENTATION)


@pytest.fixture
def short_recipe(monkeypatch):
    monkeypatch.setitem(RECIPES, "cornernet-tiny", SHORT)
    monkeypatch.setattr(cli, "VALIDATION_SCENES", 2)


def command(data, output, *more):
    return main(["fit", "--config", "cornernet-tiny", "--data", str(data), "--output", str(output), *map(str, more)])


def same_weights(first, second):
    trees = [load_checkpoint(path).model.state_dict() for path in (first, second)]
    return all(torch.equal(trees[0][name], trees[1][name]) for name in trees[0])


# Shapes.


@pytest.mark.slow
@pytest.mark.usefixtures("short_recipe")
def test_shapes_are_fresh_scenes_of_the_seed_unvaried_and_validated_on_others(tmp_path, capsys):
    assert command("shapes", tmp_path / "out") == 0
    path = tmp_path / "out" / "best.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    assert load_checkpoint(path).spec.class_names == CLASS_NAMES
    plain = replace(SHORT, augmentation=type(SHORT.augmentation)())
    direct = fit(FitRequest(plain, tmp_path / "direct"), ShapeScenes(SHORT.seed, SHORT.batch))
    assert same_weights(path, direct)
    validation = CocoPictures(tmp_path / "out" / "validation")
    assert len(validation) == 2
    assert np.any(validation[0].image[:100, :100] != ShapeScenes(SHORT.seed, 1)[0].image[:100, :100])


@pytest.mark.slow
@pytest.mark.usefixtures("short_recipe")
def test_flags_take_the_place_of_the_recipe(tmp_path):
    flags = ["--steps", 2, "--batch", 1, "--learning-rate", 0.001, "--schedule", "step", "--seed", 7]
    assert command("shapes", tmp_path / "out", *flags) == 0
    recipe = load_state(tmp_path / "out" / "state.pt").identity["recipe"]
    expected = {"steps": 2, "batch": 1, "learning_rate": 0.001, "schedule": "step", "seed": 7}
    assert {name: recipe[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.usefixtures("short_recipe")
def test_resume_goes_on_and_refuses_other_flags(tmp_path, capsys):
    assert command("shapes", tmp_path / "out") == 0
    assert command("shapes", tmp_path / "out") == 1
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert command("shapes", tmp_path / "out", "--resume") == 0
    assert command("shapes", tmp_path / "out", "--resume", "--learning-rate", 1) == 1
    assert "recipe.learning_rate was 0.0025 and is now 1.0" in capsys.readouterr().err


# Folders.


@pytest.mark.usefixtures("short_recipe")
def test_a_folder_gives_the_classes_and_is_varied_as_the_recipe_says(tmp_path, capsys):
    assert command(coco_folder(tmp_path / "data"), tmp_path / "out") == 0
    path = tmp_path / "out" / "last.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    assert load_checkpoint(path).spec.class_names == ("wide", "tall")
    assert load_state(tmp_path / "out" / "state.pt").identity["recipe"]["augmentation"]["flip"] == 0.5


@pytest.mark.slow
def test_validation_picks_the_best_and_is_logged(tmp_path, monkeypatch):
    recipe = replace(TINY, steps=60, batch=3, validate_every=20, ema_decay=0.9)
    monkeypatch.setitem(RECIPES, "cornernet-tiny", recipe)
    data = coco_folder(tmp_path / "data")
    assert command(data, tmp_path / "out", "--validation", data) == 0
    with (tmp_path / "out" / "log.csv").open(newline="") as file:
        measured = [float(row["ap"]) for row in csv.DictReader(file) if row["ap"]]
    assert len(measured) == 3
    # Three plain rectangles, validated on themselves, are learnt in seconds.
    assert max(measured) > 30
    assert load_state(tmp_path / "out" / "state.pt").best_ap == pytest.approx(max(measured), abs=0.01)
    # The last of equals is the best.
    last_is_best = measured[-1] >= max(measured)
    assert same_weights(tmp_path / "out" / "best.safetensors", tmp_path / "out" / "last.safetensors") == last_is_best


@pytest.mark.usefixtures("short_recipe")
def test_a_checkpoint_is_fine_tuned_to_the_classes_of_the_folder(checkpoint_path, tmp_path, capsys):
    assert command(coco_folder(tmp_path / "data"), tmp_path / "out", "--checkpoint", checkpoint_path) == 0
    assert "the last layers of the heat branches begin anew, for 2 classes" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "out" / "last.safetensors").spec.name == "small"


@pytest.mark.usefixtures("short_recipe")
def test_a_broken_picture_is_left_out_or_with_a_flag_ends_training(tmp_path, capsys):
    data = coco_folder(tmp_path / "data", broken=[1])
    assert command(data, tmp_path / "out", "--batch", 3) == 0
    said = f"{data / 'images' / '1.png'}: cannot be decoded as a picture"
    assert f"note: left out, number 1: {said}\n" in capsys.readouterr().err
    assert command(data, tmp_path / "strict", "--batch", 3, "--strict") == 1
    assert capsys.readouterr().err.endswith(f"error: {said}\n")


@pytest.mark.usefixtures("short_recipe")
def test_a_set_without_a_readable_picture_is_one_line_and_no_checkpoint(tmp_path, capsys):
    data = coco_folder(tmp_path / "data", pictures=1, broken=[0])
    assert command(data, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"error: no picture can be read; the last: {data / 'images' / '0.png'}: cannot be decoded" in said
    assert "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("short_recipe")
def test_defects_of_a_set_are_told_before_training(tmp_path, capsys):
    data = coco_folder(tmp_path / "data")
    (data / "images" / "1.png").unlink()
    assert command(data, tmp_path / "out") == 0
    assert f"note: {data / 'annotations.json'}: 1 picture missing: {data}/images/1.png\n" in capsys.readouterr().err


@pytest.mark.usefixtures("short_recipe")
def test_files_with_pictures_elsewhere_are_named_by_flags(tmp_path, capsys):
    data, other = coco_folder(tmp_path / "data"), coco_folder(tmp_path / "other", pictures=2)
    for folder in (data, other):
        (folder / "images").rename(folder / "pictures")
    files = [data / "annotations.json", tmp_path / "out", "--validation", other / "annotations.json"]
    images = ["--images", data / "pictures"]
    assert command(*files) == 1
    said = f"none of its 3 pictures is there, such as {data / 'images' / '0.png'}; --images names their folder"
    assert said in capsys.readouterr().err
    assert command(*files, *images) == 1
    assert f"none of its 2 pictures is there, such as {other / 'images' / '0.png'};" in capsys.readouterr().err
    assert command(*files, *images, "--validation-images", other / "pictures") == 0
    assert (tmp_path / "out" / "best.safetensors").exists()


@pytest.mark.usefixtures("short_recipe")
def test_other_annotations_are_refused_on_resuming(tmp_path, capsys):
    data = coco_folder(tmp_path / "data")
    assert command(data, tmp_path / "out") == 0
    path = data / "annotations.json"
    path.write_text(path.read_text() + " ")  # of other bytes
    assert command(data, tmp_path / "out", "--resume") == 1
    assert "cannot resume with another configuration: pictures was " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "validate_every", "save_every"),
    [
        ([], 500, 500),
        (["--steps", 60], 6, 500),
        (["--steps", 5], 1, 500),
        (["--steps", 100_000], 500, 500),
        (["--steps", 60, "--validate-every", 40, "--save-every", 7], 40, 7),
    ],
)
def test_short_trainings_are_validated_ten_times_unless_a_flag_says_how_often(
    tmp_path, monkeypatch, flags, validate_every, save_every
):
    requests = []
    monkeypatch.setitem(RECIPES, "cornernet-tiny", SHORT)
    monkeypatch.setattr(loop, "fit", lambda request, _: requests.append(request))
    assert command(coco_folder(tmp_path / "data"), tmp_path / "out", *flags) == 0
    recipe = requests[0].recipe
    assert (recipe.validate_every, recipe.save_every) == (validate_every, save_every)


@pytest.mark.slow
@pytest.mark.usefixtures("short_recipe")
def test_resuming_takes_the_stored_recipe(tmp_path, capsys):
    data = coco_folder(tmp_path / "data")
    assert command(data, tmp_path / "out", "--steps", 2, "--batch", 1, "--seed", 7) == 0
    assert command(data, tmp_path / "out", "--resume") == 0
    assert "is at step 2 of 2 already" in capsys.readouterr().err


def test_a_missing_data_folder_is_one_line_and_status_1(tmp_path, capsys):
    assert command(tmp_path / "missing", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {tmp_path / 'missing' / 'annotations.json'}: no such file; give a folder with ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: (data / "annotations.json").unlink(), "annotations.json: no such file"),
        (lambda data: (data / "images" / "1.png").unlink(), "1 picture missing, such as "),
        (
            lambda data: (data / "annotations.json").write_text(
                (data / "annotations.json").read_text().replace('"tall"', '"high"')
            ),
            "no category is named tall; it has ['wide', 'high']",
        ),
    ],
)
def test_a_validation_set_is_checked_before_training(tmp_path, capsys, spoil, said):
    data, validation = coco_folder(tmp_path / "data"), coco_folder(tmp_path / "validation")
    spoil(validation)
    assert command(data, tmp_path / "out", "--validation", validation) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Usage.


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_a_rate_that_is_none_is_an_error_of_one_line(tmp_path, capsys, rate):
    assert command("shapes", tmp_path / "out", "--learning-rate", rate) == 1
    said = "recipe: expected finite learning_rate > 0, gradient_norm > 0 and weight_decay >= 0"
    assert capsys.readouterr().err == f"error: {said}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "cornernet-huge", "--data", "shapes", "--output", "out"],
        ["--config", "cornernet-tiny", "--data", "shapes"],
        ["--config", "cornernet-tiny", "--output", "out"],
        ["--config", "cornernet-tiny", "--data", "shapes", "--output", "out", "--steps", "0"],
        ["--config", "cornernet-tiny", "--data", "shapes", "--output", "out", "--schedule", "cosine"],
    ],
)
def test_wrong_usage_is_status_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["fit", *arguments])
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


# A published checkpoint.


def published_tensor(name, shape):
    """Return weights of the usual size; of batch norm the identity."""
    if len(shape) > 1:
        return 0.5 * torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
    return torch.ones(shape) if name.endswith(("weight", "running_var")) else torch.zeros(shape)


@pytest.mark.slow
def test_a_published_pickle_is_trained_on_with_other_classes(tmp_path):
    torch.manual_seed(5)
    shapes = published_layouts.princeton(published_layouts.SQUEEZE)
    state = {f"module.{name}": published_tensor(name, shape) for name, shape in shapes}
    torch.save(state, tmp_path / "squeeze.pkl", _use_new_zipfile_serialization=False)
    coco_folder(tmp_path / "data")
    paths = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--checkpoint", tmp_path / "squeeze.pkl"]
    options = ["--config", "cornernet-squeeze", "--size", "127x127", "--steps", 2, "--batch", 2, "--workers", 0]
    assert main(["fit", *map(str, [*paths, *options])]) == 0
    tuned = load_checkpoint(tmp_path / "out" / "last.safetensors")
    assert (tuned.spec.name, tuned.spec.class_names) == ("cornernet-squeeze", ("wide", "tall"))
    assert (tuned.spec.input_size, tuned.spec.stride, tuned.spec.decode.top_k) == ((127, 127), 8, 20)
    moved = tuned.model.state_dict()["stem.0.0.weight"] - state["module.hg.pre.0.conv.weight"]
    # AdamW moves a weight by about its rate a step.
    assert 0 < moved.abs().max() < 4 * RECIPES["cornernet-squeeze"].learning_rate


def test_a_size_that_the_network_cannot_take_is_refused(tmp_path, capsys):
    assert command("shapes", tmp_path / "out", "--size", "256x255") == 1
    assert "255" in capsys.readouterr().err
    assert not (tmp_path / "out" / "state.pt").exists()

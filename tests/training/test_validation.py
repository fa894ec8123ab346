"""Validation within training: which weights it measures, which it keeps, and what of it resuming needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from cases.tiny_training import TINY, Hooked, Rectangles, coco_folder

from cornernet_export.checkpoint import load_checkpoint
from cornernet_runtime.errors import CornerNetError, FrameError
from cornernet_train import loop
from cornernet_train.loop import FitRequest, fit
from cornernet_train.state import load_state

RECIPE = replace(TINY, steps=6, batch=3, ema_decay=0.9, validate_every=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coco_folder(tmp_path_factory.mktemp("data") / "set")


class Spoilt(Rectangles):
    """The third of three pictures is broken."""

    def __init__(self):
        super().__init__(3)

    def __getitem__(self, index):
        if index == 2:
            raise FrameError("picture 2 cannot be decoded")
        return super().__getitem__(index)


def trained(output, data, points, *, hooks=None, resume=False):
    """Train with validations of which the next has the next of ``points``; return the weights that they were given.

    ``hooks`` are called as steps begin.
    """
    points, given, pictures = iter(points), [], Hooked(Spoilt(), hooks or {}, RECIPE.batch)

    def measured(model, *_):
        given.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(points)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validation_ap", measured)
        fit(FitRequest(RECIPE, output, validation=data, resume=resume, workers=0), pictures)
    return given


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """A training whose first validation is the best, the weights that each was given, and its folder after two."""
    folder = tmp_path_factory.mktemp("trainings")
    output, begun = folder / "straight", folder / "begun"
    given = trained(output, data, [30.0, 10.0, 20.0], hooks={5: lambda: shutil.copytree(output, begun)})
    return output, given, begun


@pytest.fixture
def begun(straight, tmp_path):
    """A training of which four steps and two validations were done."""
    return shutil.copytree(straight[2], tmp_path / "begun")


def same(first, second):
    """Say whether two states are equal bit for bit; checkpoints do not hold the counters of batch norms."""
    names = [name for name in first if "num_batches" not in name]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in names)


@pytest.mark.slow
def test_the_running_mean_is_measured_and_kept_and_not_the_raw_weights(straight):
    output, given, _ = straight
    state = load_state(output / "state.pt")
    assert same(given[-1], state.average)
    assert not torch.equal(given[-1]["stem.0.0.weight"], state.model["stem.0.0.weight"])
    assert same(given[0], load_checkpoint(output / "best.safetensors").model.state_dict())


@pytest.mark.slow
def test_of_equal_ap_the_later_weights_are_the_best(data, begun):
    (given,) = trained(begun, data, [30.0], resume=True)
    assert load_state(begun / "state.pt").best_step == 6
    assert same(given, load_checkpoint(begun / "best.safetensors").model.state_dict())


def test_the_best_so_far_and_the_count_of_broken_pictures_go_on_after_resuming(straight, data, begun):
    trained(begun, data, [20.0], resume=True)
    state = load_state(begun / "state.pt")
    # Each of the six batches has each picture once.
    assert (state.best_ap, state.best_step, state.unreadable) == (30.0, 2, 6)
    for name in ("last.safetensors", "best.safetensors"):
        assert (begun / name).read_bytes() == (straight[0] / name).read_bytes(), name


def test_another_validation_set_or_none_is_refused_on_resuming(straight, tmp_path):
    other = coco_folder(tmp_path / "other", pictures=2)
    for validation, now in ((other, "[0-9a-f]{64}"), (None, "None")):
        request = FitRequest(RECIPE, straight[0], validation=validation, resume=True)
        with pytest.raises(CornerNetError, match=rf"validation was [0-9a-f]{{64}} and is now {now}; give what"):
            fit(request, Spoilt())


def test_a_training_that_has_ended_says_so_and_stays_as_it_is(straight, data, capsys):
    output = straight[0]
    names = ("state.pt", "last.safetensors", "best.safetensors", "config.json")
    before = {name: (output / name).read_bytes() for name in names}
    _ = capsys.readouterr()
    assert trained(output, data, [], resume=True) == []
    assert f"note: {output} is at step 6 of 6 already\n" in capsys.readouterr().err
    assert {name: (output / name).read_bytes() for name in names} == before


def test_a_validation_set_without_objects_is_refused_before_training(tmp_path):
    data = coco_folder(tmp_path / "set")
    content = json.loads((data / "annotations.json").read_text())
    (data / "annotations.json").write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(FrameError) as caught:
        fit(FitRequest(RECIPE, tmp_path / "out", validation=data), Rectangles())
    assert str(caught.value) == f"{data}: there is no object to measure AP on; leave --validation away"
    assert not (tmp_path / "out").exists()


def test_a_validation_picture_that_cannot_be_read_is_refused_before_training(tmp_path):
    data = coco_folder(tmp_path / "set", broken=[1])
    with pytest.raises(FrameError) as caught:
        fit(FitRequest(RECIPE, tmp_path / "out", validation=data), Rectangles())
    assert str(caught.value) == f"{data / 'images' / '1.png'}: cannot be decoded as a picture"
    assert not (tmp_path / "out").exists()

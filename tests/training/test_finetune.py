"""Fine-tuning: what of a checkpoint stays, what begins anew, and that it is said."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from cases.small import SMALL, SMALL_SPEC
from cases.tiny_training import TINY, Hooked, Rectangles

from cornernet_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cornernet_export.model import CornerNet, preset
from cornernet_runtime.bundle.spec import DecodeParameters, ModelSpec, NmsParameters, Normalisation
from cornernet_runtime.errors import CheckpointError, CornerNetError, ModelError
from cornernet_train.finetune import adapt
from cornernet_train.loop import FitRequest, fit

# As mmdetection's: everything that travels with the weights differs from the defaults.
FOREIGN = replace(
    SMALL_SPEC,
    normalisation=Normalisation("rgb", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), (1.0, 2.0, 3.0)),
    decode=DecodeParameters(top_k=20, candidates=100, reject_empty=True),
    nms=NmsParameters(pixel_extent=0.0),
)
ONE_STEP = replace(TINY, steps=1)
FIRE = replace(SMALL, unit="fire", upsample="deconvolution", branch_kernel=1)


def checkpoint_of(config, spec=FOREIGN):
    torch.manual_seed(3)
    return Checkpoint(CornerNet(config).eval(), spec)


def difference(model, checkpoint):
    """Return the names of tensors that are not the checkpoint's."""
    before = checkpoint.model.state_dict()
    return [
        name
        for name, tensor in model.state_dict().items()
        if tensor.shape != before[name].shape or not torch.equal(tensor, before[name])
    ]


HEAT = [
    f"{corner}.{stack}.heat.2.{part}"
    for corner in ("top_left", "bottom_right")
    for stack in (0, 1)
    for part in ("weight", "bias")
]


@pytest.mark.parametrize("config", [SMALL, FIRE], ids=["residual", "fire"])
@pytest.mark.parametrize("names", [("wide", "tall"), ("a", "b", "c"), ("ant", "bee", "dog")])
def test_other_classes_begin_anew_and_nothing_else_does(config, names):
    checkpoint = checkpoint_of(config)
    model, spec, news = adapt(checkpoint, names, (63, 63))
    # Biases of fresh heat layers are constant, and so equal to those of a network that was never trained.
    assert set(difference(model, checkpoint)) | {name for name in HEAT if "bias" in name} == set(HEAT)
    assert model.config.classes == len(spec.class_names) == len(names)
    assert news == [f"the last layers of the heat branches begin anew, for {len(names)} classes"]


def test_the_same_classes_keep_every_tensor_and_nothing_is_said():
    checkpoint = checkpoint_of(SMALL)
    model, spec, news = adapt(checkpoint, FOREIGN.class_names, (63, 63))
    assert difference(model, checkpoint) == []
    assert news == []
    assert spec.class_names == FOREIGN.class_names


def test_what_travels_with_the_weights_stays():
    _, spec, _ = adapt(checkpoint_of(SMALL), ("wide", "tall"), (47, 79))
    assert (spec.normalisation, spec.decode, spec.nms) == (FOREIGN.normalisation, FOREIGN.decode, FOREIGN.nms)
    assert spec.input_size == spec.largest_size == (47, 79)


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(ModelError, match=r"a small cannot be trained so: .*64"):
        adapt(checkpoint_of(SMALL), ("wide", "tall"), (64, 63))


@pytest.fixture(scope="module")
def trained_for_a_step(checkpoint_path, tmp_path_factory):
    output = tmp_path_factory.mktemp("step") / "out"
    fit(FitRequest(ONE_STEP, output, checkpoint=checkpoint_path), Rectangles())
    return output


@pytest.fixture
def one_step(trained_for_a_step, tmp_path):
    """A training of one step, which began with the checkpoint of ``checkpoint_path``."""
    return shutil.copytree(trained_for_a_step, tmp_path / "out")


def test_fitting_from_a_checkpoint_goes_on_from_its_weights(checkpoint_path, tmp_path, capsys):
    recipe = replace(TINY, steps=1, learning_rate=1e-30)
    path = fit(FitRequest(recipe, tmp_path, checkpoint=checkpoint_path), Rectangles())
    before, after = load_checkpoint(checkpoint_path), load_checkpoint(path)
    assert after.spec.name == after.model.config.name == "small"
    assert after.spec.class_names == ("wide", "tall")
    # The rate moves no weight; batch norms' statistics follow the pictures.
    moved = [name for name in difference(after.model, before) if "running" not in name and "num_batches" not in name]
    assert set(moved) <= set(HEAT)
    assert "note: the last layers of the heat branches begin anew, for 2 classes\n" in capsys.readouterr().err


def test_resuming_with_another_checkpoint_is_refused(one_step):
    other = one_step / "last.safetensors"
    with pytest.raises(CornerNetError, match=r"checkpoint was [0-9a-f]{64} and is now [0-9a-f]{64}"):
        fit(FitRequest(ONE_STEP, one_step, checkpoint=other, resume=True), Rectangles())


@pytest.mark.slow
def test_resuming_needs_the_checkpoint_no_more_and_keeps_what_travelled_with_it(tmp_path, capsys):
    # As a published one: another network than the recipe's, and another normalisation than the default.
    begun = tmp_path / "foreign.safetensors"
    save_checkpoint(begun, checkpoint_of(SMALL).model, FOREIGN)
    recipe = replace(TINY, steps=4, save_every=2)
    straight, output = tmp_path / "straight", tmp_path / "stopped"
    pictures = Hooked(Rectangles(), {3: lambda: shutil.copytree(straight, output)})
    fit(FitRequest(recipe, straight, checkpoint=begun, workers=0), pictures)
    begun.unlink()
    _ = capsys.readouterr()
    resumed = load_checkpoint(fit(FitRequest(recipe, output, resume=True), Rectangles())).spec
    assert (resumed.name, resumed.normalisation, resumed.decode) == ("small", FOREIGN.normalisation, FOREIGN.decode)
    assert (output / "last.safetensors").read_bytes() == (straight / "last.safetensors").read_bytes()
    assert "begin anew" not in capsys.readouterr().err


def test_resuming_before_the_first_weights_were_written_asks_for_the_checkpoint(checkpoint_path, one_step):
    (one_step / "last.safetensors").unlink()
    request = FitRequest(ONE_STEP, one_step, resume=True)
    with pytest.raises(CornerNetError, match=r"there is no last\.safetensors yet: add --checkpoint"):
        fit(request, Rectangles())
    assert fit(replace(request, checkpoint=checkpoint_path), Rectangles()) == one_step / "last.safetensors"


def test_the_recipe_of_another_published_network_is_refused(tmp_path):
    path = tmp_path / "tiny.safetensors"
    model = CornerNet(preset("cornernet-tiny", classes=2))
    save_checkpoint(path, model, ModelSpec("cornernet-tiny", ("wide", "tall"), 4, 32, (63, 63), (63, 63)))
    recipe = replace(TINY, arch="cornernet-squeeze", input_size=(127, 127))
    with pytest.raises(CornerNetError) as caught:
        fit(FitRequest(recipe, tmp_path / "out", checkpoint=path), Rectangles())
    said = f"{path} is a cornernet-tiny, and the recipe is for cornernet-squeeze: --config cornernet-tiny"
    assert str(caught.value) == said


def test_a_checkpoint_that_is_none_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "some.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        fit(FitRequest(TINY, tmp_path / "out", checkpoint=tmp_path / "some.safetensors"), Rectangles())
    assert list((tmp_path / "out").iterdir()) == []

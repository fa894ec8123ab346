"""Faults planted in the shipped model, which the oracle must lay at what they were planted in."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from cases.oracle import SIDE, SPEC, ideal, write_set
from places import SHIPPED

from cornernet_bench.measuring.intervals import Difference, resampling_note
from cornernet_bench.oracle.analyse import analyse
from cornernet_bench.oracle.maps import KINDS, true_maps
from cornernet_bench.oracle.repairs import REPAIRS, ClassVotes, Effect, find_cause, from_reference, rewired
from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime.bundle.spec import Normalisation
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.geometry import place
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps
from cornernet_train.shapes_dataset import write_shapes

SCENES = 10


class Recorded:
    """Another backend, which computes each input once."""

    name, max_batch = "recorded", 1

    def __init__(self, backend):
        self._backend, self._known = backend, {}

    def __call__(self, images):
        key = images.tobytes()
        if key not in self._known:
            self._known[key] = self._backend(images)
        return self._known[key]

    def close(self):
        self._known = {}


class Altered:
    """Another backend, whose maps a fault changes."""

    name, max_batch = "altered", 1

    def __init__(self, backend, fault):
        self._backend, self._fault = backend, fault

    def __call__(self, images):
        maps = self._backend(images)
        return replace(maps, **self._fault(maps))

    def close(self):
        pass


@pytest.fixture(scope="module")
def shipped():
    """The shipped checkpoint and its network's answers."""
    checkpoint = load_checkpoint(SHIPPED)
    return checkpoint, Recorded(TorchBackend(copy.deepcopy(checkpoint.model)))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle") / "scenes"
    write_shapes(folder, SCENES, seed=77)
    return folder / "annotations.json", folder / "images"


@pytest.fixture
def comparison(shipped, scenes):
    """Return a function that compares a backend with the shipped model."""
    checkpoint, backend = shipped

    def compare(other):
        report = analyse(Detector(other, checkpoint.spec), *scenes, Detector(backend, checkpoint.spec))
        return report.comparison

    return compare


@pytest.fixture
def with_fault(shipped, comparison):
    """Return a function that compares the shipped model whose maps a fault changes with itself."""
    return lambda fault: comparison(Altered(shipped[1], fault))


@pytest.mark.slow
def test_a_model_against_itself_has_no_fault(comparison, shipped):
    found = comparison(shipped[1])
    assert found.loss == Difference(0, 0, 0)
    assert {effect.gain.points for effect in found.effects if effect.repair.part != "wiring"} == {0}
    assert found.finding.cause is None
    assert found.finding.text.startswith("nothing to lay at anything: 0.00 points (0.00 to 0.00) lost")


# Weights.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "scale", "expected"),
    [
        ("top_left.1.offset", 0.6, "tl_offset"),
        ("bottom_right.1.embed", 0.5, "br_embed"),
        ("top_left.1.after_pool", 0.3, "tl"),
        ("stem.0", 0.5, None),
    ],
)
def test_perturbed_weights_are_found(shipped, comparison, parameter, scale, expected):
    model = copy.deepcopy(shipped[0].model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.get_submodule(parameter).parameters():
            weights.add_(scale * weights.abs().mean() * torch.randn_like(weights))
    found = comparison(TorchBackend(model))
    assert found.loss.points > 3
    assert found.finding.cause == expected, found.finding.text


# Precision.


@pytest.mark.slow
def test_embeddings_that_float16_cannot_tell_apart_are_found(with_fault):
    def far_out(maps):
        return {name: np.float32(np.float16(getattr(maps, name) + 1500)) for name in ("tl_embed", "br_embed")}

    found = with_fault(far_out)
    assert found.loss.points > 1
    assert found.finding.cause == "embed", found.finding.text


# Wiring.


WIRING = {
    "corners": lambda maps: {
        new: getattr(maps, old)
        for kind in KINDS
        for new, old in ((f"tl_{kind}", f"br_{kind}"), (f"br_{kind}", f"tl_{kind}"))
    },
    "corners_embed": lambda maps: {"tl_embed": maps.br_embed, "br_embed": maps.tl_embed},
    "offset_xy": lambda maps: {"tl_offset": maps.tl_offset[:, ::-1], "br_offset": maps.br_offset[:, ::-1]},
    "classes": lambda maps: {
        "tl_heat": maps.tl_heat[:, [2, 0, 1, 5, 4, 3]],
        "br_heat": maps.br_heat[:, [2, 0, 1, 5, 4, 3]],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", WIRING)
def test_outputs_that_are_exchanged_are_found_and_the_exchange_brings_everything_back(with_fault, fault):
    found = with_fault(WIRING[fault])
    assert found.loss.points > 5
    assert found.finding.cause == fault, found.finding.text
    gain = next(effect.gain for effect in found.effects if effect.repair.name == fault)
    assert gain.points == pytest.approx(found.loss.points, abs=1e-6)


def test_each_exchange_moves_the_maps_that_it_names():
    rng = np.random.default_rng(0)
    own, reference = (
        CornerMaps(*(rng.random((count, 4, 5), np.float32) for count in (3, 3, 1, 1, 2, 2))) for _ in range(2)
    )
    other = {"tl": "br", "br": "tl"}
    trials = rewired(own) | from_reference(own, reference)
    assert set(trials) == {repair.name for repair in REPAIRS} - {"input_channels", "classes"}
    for trial, maps in trials.items():
        for name in OUTPUT_NAMES:
            corner, kind = name.split("_")
            expected = getattr(own, name)
            if trial in ("corners", f"corners_{kind}"):
                expected = getattr(own, f"{other[corner]}_{kind}")
            elif trial == "offset_xy" and kind == "offset":
                expected = expected[[1, 0]]
            elif trial in (name, kind, corner):
                expected = getattr(reference, name)
            np.testing.assert_array_equal(getattr(maps, name), expected, err_msg=f"{trial}: {name}")


@pytest.mark.slow
def test_permuted_classes_of_one_corner_are_laid_at_its_heat(with_fault):
    found = with_fault(lambda maps: {"br_heat": maps.br_heat[:, [1, 2, 3, 4, 5, 0]]})
    assert found.finding.cause == "br_heat", found.finding.text


class BlueBackend:
    """A network that finds blue rectangles and no others."""

    name, max_batch = "blue", 1

    def __call__(self, images):
        normalisation = SPEC.normalisation
        levels = [
            image * std + mean
            for image, std, mean in zip(images[0], normalisation.std, normalisation.mean, strict=True)
        ]
        blue = (levels[0] > 0.7) & (levels[2] < 0.3)
        boxes = cv2.connectedComponentsWithStats(blue.astype(np.uint8))[2][1:, :4] * 64 / SIDE
        maps = ideal([([x, y, x + width, y + height], 0) for x, y, width, height in boxes])
        return CornerMaps(*(getattr(maps, field.name)[None] for field in fields(maps)))

    def close(self):
        pass


def test_a_wrong_order_of_the_input_channels_is_found(tmp_path):
    rng = np.random.default_rng(4)
    frames, truth = {}, {}
    for number in range(1, 7):
        frames[number] = np.full((SIDE, SIDE, 3), 128, np.uint8)
        for colour, left in (((255, 0, 0), 10), ((0, 0, 255), 130)):
            x1, y1 = left + int(rng.integers(20)), int(rng.integers(10, 60))
            x2, y2 = x1 + int(rng.integers(20, 90)), y1 + int(rng.integers(20, 150))
            frames[number][y1:y2, x1:x2] = colour
            if colour[0]:
                truth[number] = [(np.array([x1, y1, x2, y2]) * 64 / SIDE, 0)]
    wrong = replace(SPEC, normalisation=replace(Normalisation(), channel_order="rgb"))
    paths = write_set(tmp_path, truth, frames)
    found = analyse(Detector(BlueBackend(), wrong), *paths, Detector(BlueBackend(), SPEC)).comparison
    assert found.reference["ap"] == pytest.approx(100)
    assert found.loss.points == pytest.approx(100)
    assert found.finding.cause == "input_channels", found.finding.text


# Weighing.


def effects(**gains):
    """Return all effects, those named with (points, low, high) and the others of nothing."""
    return [Effect(one, 50, Difference(*gains.get(one.name, (0, -0.1, 0.1)))) for one in REPAIRS]


LOSS = Difference(5, 4, 6)


def test_the_simplest_of_those_that_bring_nearly_as_much_is_the_cause():
    both = effects(tl_embed=(4.7, 4, 5), embed=(5, 4.5, 5.5), tl=(4.8, 4, 5))
    assert find_cause(LOSS, both).cause == "tl_embed"
    assert find_cause(LOSS, effects(tl_embed=(3, 2, 4), embed=(5, 4, 6))).cause == "embed"
    wired = effects(corners_offset=(4.9, 4, 5), offset=(5, 4, 6))
    assert find_cause(LOSS, wired).cause == "corners_offset"
    said = find_cause(LOSS, wired).text
    assert said == (
        "tl_offset and br_offset are exchanged: the exchange brings back 4.90 points (4.00 to 5.00) "
        "of 5.00 points (4.00 to 6.00) lost"
    )


def test_what_lies_within_the_noise_is_no_cause():
    assert find_cause(LOSS, effects(tl_heat=(4, -1, 9))).cause is None
    assert find_cause(Difference(5, -1, 9), effects(tl_heat=(5, 4, 6))).cause is None
    assert find_cause(Difference(0.05, 0.02, 0.08), effects(tl_heat=(0.05, 0.02, 0.08))).cause is None


def test_a_loss_that_no_exchange_explains_is_laid_before_the_heads():
    none = find_cause(LOSS, effects())
    assert none.cause is None
    assert "no exchange brings any back: the fault lies before the heads" in none.text
    some = find_cause(LOSS, effects(tl_heat=(2, 1, 3)))
    assert some.cause is None
    assert "the most that one exchange brings back is 2.00 points (1.00 to 3.00) (tl_heat)" in some.text


def test_a_wiring_that_is_wrong_in_both_models_is_found_without_a_loss():
    assert find_cause(Difference(0, 0, 0), effects(offset_xy=(10, 8, 12))).cause == "offset_xy"
    assert find_cause(Difference(0, 0, 0), effects(offset_xy=(0.5, 0.2, 0.8))).cause is None


def test_a_set_without_objects_says_nothing():
    nothing = Difference.of(float("nan"), np.full(200, np.nan))
    found = find_cause(nothing, [Effect(one, float("nan"), nothing) for one in REPAIRS])
    assert (found.cause, found.text) == (None, "there is no object to find on these pictures")


def test_an_interval_holds_the_middle_95_of_100_draws():
    drawn = np.append(np.random.default_rng(0).permutation(np.arange(201.0)), np.nan)  # a set without objects
    assert Difference.of(7, drawn) == Difference(7, 5, 195)


def test_few_pictures_are_said_to_be_few():
    assert resampling_note(6).endswith("; 6 pictures are few for that")
    assert "few" not in resampling_note(500)


# Classes.


def votes_of(order, *labels):
    """Return the votes on a picture with an object of each label, whose heat has channel ``order[c]`` as class c."""
    votes = ClassVotes(3)
    boxes = np.array([[20.0 * column + 10, 10, 20 * column + 25, 40] for column in range(len(labels))])
    truth = true_maps(boxes, np.array(labels), _view(), classes=3, stride=4)
    inverse = np.argsort(order)
    maps = replace(truth.maps, tl_heat=truth.maps.tl_heat[inverse], br_heat=truth.maps.br_heat[inverse])
    votes.add(maps, truth.targets)
    return votes.relabelling()


def _view():
    return place((SIDE, SIDE), SPEC)[0]


def test_channels_are_given_the_class_whose_corners_they_show():
    assert votes_of([1, 2, 0], 0, 1, 2).tolist() == [2, 0, 1]
    assert votes_of([0, 1, 2], 0, 1, 2) is None


def test_classes_without_objects_keep_their_channel_where_it_is_free():
    assert votes_of([1, 0, 2], 0, 1).tolist() == [1, 0, 2]
    assert votes_of([2, 0, 1], 0).tolist() == [2, 1, 0]  # all that is known is that channel 2 shows class 0


def test_a_channel_that_shows_two_classes_is_given_the_one_that_it_shows_more():
    votes = ClassVotes(3)
    truth = true_maps(np.array([[10, 10, 25, 40.0], [40, 10, 60, 40]]), np.array([0, 1]), _view(), classes=3, stride=4)
    tl, br = truth.maps.tl_heat, truth.maps.br_heat
    # Channel 2 shows both, class 1 a little more; channel 0 shows class 0 faintly.
    mixed = [np.stack([heat[0] - 5, heat[2], np.maximum(heat[0] - 1, heat[1])]) for heat in (tl, br)]
    votes.add(replace(truth.maps, tl_heat=mixed[0], br_heat=mixed[1]), truth.targets)
    assert votes.relabelling().tolist() == [0, 2, 1]

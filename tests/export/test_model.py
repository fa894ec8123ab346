"""The reference model: sizes that are published, and what inference and training each run of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases.small import SMALL, small_model

from cornernet_export.model import PRESETS, CornerNet, CornerNetConfig, CornerTensors, preset
from cornernet_runtime.bundle.records import RecordError
from cornernet_runtime.errors import ModelError
from cornernet_runtime.processing.maps import OUTPUT_NAMES

SQUEEZE = CornerNetConfig(
    name="squeeze",
    classes=80,
    stacks=2,
    stem=(128, 256, 256),
    dims=(256, 256, 384, 384, 512),
    modules=(2, 2, 2, 2, 4),
    unit="fire",
    upsample="deconvolution",
    branch_kernel=1,
)
SACCADE = replace(PRESETS["cornernet-104"], stacks=3, dims=(256, 384, 384, 512), modules=(1, 1, 1, 1))
SMALL_FIRE = replace(SMALL, unit="fire", upsample="deconvolution", branch_kernel=1, stem=(8, 16, 16))


@pytest.fixture(scope="module")
def model():
    return small_model()


def on_meta_device(config):
    """Build the network without memory for its weights."""
    with torch.device("meta"):
        return CornerNet(config)


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def runs_of_heads(model, call):
    """Return how often each stack's top-left and bottom-right head ran during ``call``."""
    heads = [*model.top_left, *model.bottom_right]
    counts = [0] * len(heads)

    def counter(index):
        def count(*_):
            counts[index] += 1

        return count

    handles = [head.register_forward_hook(counter(index)) for index, head in enumerate(heads)]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return counts


# Size, against the published networks (cornernet.md, section 1).


def test_cornernet_104_has_the_published_number_of_parameters():
    assert count_parameters(on_meta_device(preset("cornernet-104"))) == 201_035_212


def test_squeeze_shape_has_the_published_number_of_parameters():
    assert count_parameters(on_meta_device(SQUEEZE)) == 31_771_852


def test_cornernet_tiny_fits_the_eight_megabytes_it_is_shipped_in():
    model = on_meta_device(preset("cornernet-tiny"))
    stored = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    assert stored <= 8e6


@pytest.mark.parametrize(
    ("config", "stride", "modulus"),
    [
        (PRESETS["cornernet-104"], 4, 128),
        (PRESETS["cornernet-tiny"], 4, 32),
        (SQUEEZE, 8, 128),
        (SACCADE, 4, 32),
        (SMALL, 4, 16),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_stride_and_modulus_follow_from_stem_and_depth(config, stride, modulus):
    assert (config.stride, config.modulus) == (stride, modulus)


def test_cornernet_104_maps_are_a_quarter_of_the_input():
    maps = on_meta_device(preset("cornernet-104"))(torch.empty(1, 3, 511, 767, device="meta"))
    assert [tuple(tensor.shape) for tensor in maps] == [(1, channels, 128, 192) for channels in (80, 80, 1, 1, 2, 2)]


# What comes out.


@pytest.mark.parametrize(("height", "width"), [(15, 15), (15, 47), (63, 31), (79, 127)])
def test_output_shapes_for_sizes_that_are_not_square(model, height, width):
    with torch.no_grad():
        maps = model(noise(2, 3, height, width))
    cells = ((height + 1) // 4, (width + 1) // 4)
    assert {name: tuple(tensor.shape) for name, tensor in maps._asdict().items()} == {
        "tl_heat": (2, 3, *cells),
        "br_heat": (2, 3, *cells),
        "tl_embed": (2, 1, *cells),
        "br_embed": (2, 1, *cells),
        "tl_offset": (2, 2, *cells),
        "br_offset": (2, 2, *cells),
    }


@pytest.mark.parametrize(("height", "width"), [(31, 95), (63, 31)])
def test_output_shapes_of_fire_units_behind_a_stride_of_eight(height, width):
    with torch.no_grad():
        maps = CornerNet(SMALL_FIRE).eval()(noise(1, 3, height, width))
    assert maps.tl_heat.shape == (1, 3, (height + 1) // 8, (width + 1) // 8)


def test_outputs_have_the_names_and_order_of_the_runtime():
    assert CornerTensors._fields == OUTPUT_NAMES


def test_a_picture_gives_the_same_maps_alone_and_in_a_batch(model):
    images = noise(3, 3, 31, 47)
    with torch.no_grad():
        together, alone = model(images), model(images[1:2])
    for batched, single in zip(together, alone, strict=True):
        # The convolution of a batch may sum in another order: a few float32 roundings.
        torch.testing.assert_close(batched[1:2], single, rtol=1e-5, atol=1e-5)


def test_forward_gives_the_maps_of_the_last_stack(model):
    image = noise(1, 3, 47, 63)
    with torch.no_grad():
        last, every = model(image), model.all_stacks(image)
    assert len(every) == SMALL.stacks
    assert all(torch.equal(a, b) for a, b in zip(last, every[-1], strict=True))


def test_stacks_give_different_maps(model):
    with torch.no_grad():
        first, last = model.all_stacks(noise(1, 3, 47, 63))
    assert not any(torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_inference_runs_the_heads_of_the_last_stack_only(model):
    assert runs_of_heads(model, lambda: model(noise(1, 3, 15, 15))) == [0, 1, 0, 1]


def test_training_runs_the_heads_of_every_stack(model):
    assert runs_of_heads(model, lambda: model.all_stacks(noise(1, 3, 15, 15))) == [1, 1, 1, 1]


def test_top_left_heat_does_not_see_the_bottom_right_head(model):
    image = noise(1, 3, 31, 31)
    changed = small_model()
    with torch.no_grad():
        changed.bottom_right[-1].after_pool[0].weight.zero_()
        before, after = model(image), changed(image)
    same = {name: torch.equal(getattr(before, name), getattr(after, name)) for name in OUTPUT_NAMES}
    assert same == {name: name.startswith("tl") for name in OUTPUT_NAMES}


def test_top_left_corner_sees_what_lies_right_of_it_and_below(model):
    """Corner pooling lets a corner see its whole row and column; three convolutions see 7 cells only."""
    features = torch.rand((1, 16, 40, 40), generator=torch.Generator().manual_seed(0))
    lit = features.clone()
    lit[:, :, 20, 30] += 50
    head, other = model.top_left[-1], model.bottom_right[-1]
    with torch.no_grad():
        top_left, bottom_right = (
            (each(lit)[0] - each(features)[0]).abs().amax((0, 1)) > 1e-4 for each in (head, other)
        )
    far_left, far_right = (20, 5), (20, 39)
    assert top_left[far_left]
    assert not top_left[far_right]
    assert bottom_right[far_right]
    assert not bottom_right[far_left]


# Training.


def test_heat_begins_at_one_in_ten_for_every_class_and_stack():
    model = CornerNet(SMALL)
    for head in (*model.top_left, *model.bottom_right):
        bias = head.heat[-1].bias
        assert torch.equal(bias, torch.full((SMALL.classes,), -2.19))
        assert torch.sigmoid(bias).max().item() == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("config", [SMALL, SMALL_FIRE], ids=["residual", "fire"])
def test_gradients_reach_every_parameter_through_all_stacks(config):
    torch.manual_seed(0)
    model = CornerNet(config).train()
    side = 2 * config.modulus - 1
    stacks = model.all_stacks(noise(2, 3, side, side))
    sum((tensor * torch.randn_like(tensor)).sum() for maps in stacks for tensor in maps).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_inference_leaves_only_the_heads_of_earlier_stacks_without_gradient():
    torch.manual_seed(0)
    model = CornerNet(SMALL).train()
    sum(tensor.square().sum() for tensor in model(noise(2, 3, 31, 31))).backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    heads = ("top_left.0.", "bottom_right.0.")
    assert without == {name for name, _ in model.named_parameters() if name.startswith(heads)}


# The record of a network's shape.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 0}, "positive counts"),
        ({"stacks": 0}, "positive counts"),
        ({"stacks": -1}, "positive counts"),
        ({"pool_width": 0}, "positive counts"),
        ({"modules": (1, 0, 1)}, "positive counts"),
        ({"dims": (16, -16, 24)}, "positive counts"),
        ({"modules": (1, 1)}, "as many modules as dims"),
        ({"dims": (16,), "modules": (1,)}, "as many modules as dims"),
        ({"stem": (16,)}, "positive counts"),
        ({"stem": ()}, "positive counts"),
        ({"stem": (8, 24)}, "the stem ends in 24 channels, dims begin with 16"),
        ({"branch_kernel": 2}, "odd branch_kernel, got 2"),
        ({"branch_kernel": 0}, "odd branch_kernel, got 0"),
        ({"branch_kernel": -1}, "odd branch_kernel, got -1"),
        ({"unit": "fire", "dims": (16, 17, 24)}, "even"),
    ],
    ids=str,
)
def test_config_that_cannot_be_built_is_refused(change, message):
    with pytest.raises(RecordError, match=message):
        replace(SMALL, **change)


def test_preset_takes_other_counts_of_classes_and_stacks():
    config = preset("cornernet-tiny", classes=2, stacks=3)
    assert (config.classes, config.stacks) == (2, 3)
    assert replace(config, classes=6, stacks=2) == preset("cornernet-tiny")


def test_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=f"'cornernet-52'; there are {', '.join(PRESETS)}"):
        preset("cornernet-52")


@pytest.mark.parametrize("counts", [{"classes": 0}, {"stacks": 0}], ids=str)
def test_preset_refuses_a_count_of_zero_instead_of_ignoring_it(counts):
    with pytest.raises(RecordError, match="positive counts"):
        preset("cornernet-tiny", **counts)

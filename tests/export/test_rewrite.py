"""Networks rewritten for deployment, held against the network as it was trained."""

import pytest
import torch
from cases.small import FIRE, SMALL, small_model

from cornernet_export.half_range import Activation, largest_activations, largest_weights, overflow_of
from cornernet_export.model import CornerNet
from cornernet_export.model.rewrite import cut_stacks, emulate_half, fold_batch_norms, to_half
from cornernet_runtime.errors import ModelError


def lively(config):
    torch.manual_seed(0)
    model = CornerNet(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return model


def picture():
    return torch.randn(1, 3, 63, 95, generator=torch.Generator().manual_seed(1))


def error(found, expected):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("config", [SMALL, FIRE], ids=["residual", "fire"])
def test_folding_batch_norms_changes_no_output(config):
    model = lively(config)
    with torch.inference_mode():
        folded = fold_batch_norms(model)
        # The same arithmetic in another order.
        assert error(folded(picture()), model(picture())) < 1e-5
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("config", [SMALL, FIRE], ids=["residual", "fire"])
def test_half_precision_is_inside_only(config):
    half = to_half(fold_batch_norms(lively(config)))
    head = half.top_left[0]
    assert head.refine[0].weight.dtype == torch.float16
    assert head.heat[2].weight.dtype == torch.float16
    assert head.embed[-1].weight.dtype == head.offset[-1].weight.dtype == torch.float32
    with torch.inference_mode():
        outputs = half(picture())
        assert {output.dtype for output in outputs} == {torch.float32}
        # Eleven bits through some thirty layers.
        assert error(outputs, lively(config)(picture())) < 2e-2


def test_cutting_stacks_gives_the_maps_of_the_stack_that_is_last_then():
    model = small_model()
    with torch.inference_mode():
        cut, expected = cut_stacks(model, 1)(picture()), model.all_stacks(picture())[0]
    assert all(torch.equal(a, b) for a, b in zip(cut, expected, strict=True))


@pytest.mark.parametrize("stacks", [0, -1, 3])
def test_stacks_that_the_model_does_not_have_are_refused(stacks):
    with pytest.raises(ModelError, match="2 stacks"):
        cut_stacks(small_model(), stacks)


def test_an_activation_beyond_half_range_is_laid_at_its_layer():
    model = fold_batch_norms(small_model())
    with torch.no_grad():
        model.hourglasses[0].keep[0].first[0].weight *= 1e7
    found = {item.layer: item.largest for item in largest_activations(model, [picture().numpy()])}
    assert found["stem.0.0"] < 65504 < found["hourglasses.0.keep.0.first.0"]
    assert "layer hourglasses.0.keep.0.first.0 reaches" in overflow_of(Activation(*item) for item in found.items())


def test_nan_counts_as_out_of_range():
    image = picture().numpy()
    image[0, 0, 0, 0] = float("nan")
    assert largest_activations(fold_batch_norms(small_model()), [image])[0].largest == float("inf")
    assert "layer any reaches nan" in overflow_of([Activation("any", float("nan"))])


def test_what_fits_is_no_overflow():
    assert overflow_of([Activation("a", 65504.0), Activation("b", 0.0)]) is None


def test_a_weight_beyond_half_range_is_laid_at_its_layer():
    model = fold_batch_norms(small_model())
    with torch.no_grad():
        model.stem[0][0].weight[0, 0, 0, 0] = -1e6
    assert "layer stem.0.0.weight reaches 1e+06" in overflow_of(largest_weights(model))


@pytest.mark.parametrize("config", [SMALL, FIRE], ids=["residual", "fire"])
def test_emulated_half_precision_is_half_precision_but_for_the_order_of_sums(config):
    half = to_half(fold_batch_norms(lively(config)))
    emulated = emulate_half(half)
    with torch.inference_mode():
        found, expected, single = emulated(picture()), half(picture()), lively(config)(picture())
    # A sum in another order rounds to the next of float16's numbers now and then: 5e-4, through some thirty layers.
    assert error(found, expected) < 2e-3
    assert error(found, single) > 1e-4, "it rounds"
    assert {parameter.dtype for parameter in emulated.parameters()} == {torch.float32}


def test_emulated_half_precision_overflows_to_infinity():
    folded = fold_batch_norms(small_model())
    with torch.no_grad():
        folded.top_left[1].heat[0].bias[:] = 1e5
    half = to_half(folded)
    with torch.inference_mode():
        heat = emulate_half(half)(picture()).tl_heat
    assert not torch.isfinite(heat).all()

"""Networks rewritten for deployment, held against the network as it was trained."""

import pytest
import torch
from conftest import FIRE, SMALL, small_model

from cornernet_export.half_range import Activation, check_half_range, largest_activations
from cornernet_export.model import CornerNet
from cornernet_export.model.rewrite import cut_stacks, fold_batch_norms, to_half
from cornernet_runtime.errors import ModelError, VerificationError


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
    with pytest.raises(VerificationError, match=r"layer hourglasses\.0\.keep\.0\.first\.0 reaches"):
        check_half_range([Activation(*item) for item in found.items()])


def test_nan_counts_as_out_of_range():
    image = picture().numpy()
    image[0, 0, 0, 0] = float("nan")
    assert largest_activations(fold_batch_norms(small_model()), [image])[0].largest == float("inf")
    with pytest.raises(VerificationError):
        check_half_range([Activation("any", float("nan"))])

"""Where the published pipeline takes its weights from, and what is said of them."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.small import SMALL_SPEC, small_model

from cornernet_bench.baseline.weights import published_weights
from cornernet_export.bundle_export import CHECKPOINT_NAME
from cornernet_export.checkpoint import load_checkpoint, save_checkpoint
from cornernet_runtime.errors import CheckpointError, CornerNetWarning


def test_the_baseline_takes_the_weights_of_the_model(checkpoint_path, bundle, tmp_path):
    _, source = published_weights(None, checkpoint_path, SMALL_SPEC)
    assert source == str(checkpoint_path)
    shutil.copy(checkpoint_path, bundle / CHECKPOINT_NAME)
    model, source = published_weights(None, bundle, SMALL_SPEC)
    assert source == str(bundle / CHECKPOINT_NAME)
    np.testing.assert_array_equal(
        model.state_dict()["stem.0.0.weight"].numpy(), small_model().state_dict()["stem.0.0.weight"].numpy()
    )
    named = shutil.copy(checkpoint_path, tmp_path / "named.safetensors")
    assert published_weights(Path(named), bundle, SMALL_SPEC)[1] == str(named)


def test_an_architecture_that_has_a_name_gets_random_weights(bundle_path, checkpoint_path):
    spec = replace(SMALL_SPEC, name="cornernet-tiny")
    model, source = published_weights(None, bundle_path, spec)
    own = f"not those of {checkpoint_path.name}, which it was exported from"
    assert source == f"random weights of cornernet-tiny ({own})"
    assert published_weights(None, bundle_path / "model.onnx", spec)[1] == "random weights of cornernet-tiny"
    assert model.config.classes == 3


def test_without_weights_the_checkpoint_is_asked_for(bundle_path, checkpoint_path):
    with pytest.raises(
        CheckpointError, match=r"small is none of cornernet-104, .*--baseline-checkpoint FILE$"
    ) as caught:
        published_weights(None, bundle_path, SMALL_SPEC)
    assert f"{bundle_path}, which was exported from {checkpoint_path.name}, holds no weights" in str(caught.value)


def test_a_checkpoint_that_a_bundle_was_not_exported_from_is_warned_of(bundle_path, checkpoint_path, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        published_weights(checkpoint_path, bundle_path, SMALL_SPEC)
    other = load_checkpoint(checkpoint_path, class_names=("bee", "ant", "cat"))
    save_checkpoint(tmp_path / "other.safetensors", other.model, other.spec)
    with pytest.warns(CornerNetWarning, match=rf"other.safetensors is not the {checkpoint_path.name} that .* from: "):
        published_weights(tmp_path / "other.safetensors", bundle_path, SMALL_SPEC)


def test_weights_of_another_network_are_refused(checkpoint_path, bundle_path):
    spec = replace(SMALL_SPEC, class_names=("ant", "bee"))
    with pytest.raises(CheckpointError, match=r"are \(3, 4, 16\), those of .* \(2, 4, 16\); name what it was"):
        published_weights(checkpoint_path, bundle_path, spec)

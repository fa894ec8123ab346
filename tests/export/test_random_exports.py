"""Random networks under the rounding of another processor: no sound export is refused, and no defect gets through."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from cases.small import FIRE, SMALL, SMALL_SPEC, small_model
from noise.rounding import exact, noisy
from onnx import numpy_helper

from cornernet_export import bundle_export
from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_export.verification.verify import sample_picture
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import VerificationError
from cornernet_runtime.processing.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from cornernet_runtime.bundle.manifest import Verification

ARCHITECTURES = [(config, largest) for config in (SMALL, FIRE) for largest in ((63, 95), (95, 127), (127, 111))]
NETWORKS = 200  # in a soak; the other tests take the first few


@dataclass
class Outcome:
    refused: bool
    verification: Verification

    @property
    def near_ties(self):
        return sum(check.near_ties + check.extra_near_ties for check in self.verification.detections)


@pytest.fixture(scope="module")
def exported_once():
    """``build_onnx`` that exports an architecture once and then puts other weights in: the exporter takes seconds."""
    graphs = {}

    def build(model, spec):
        key = model.config, spec
        if key not in graphs:
            graphs[key] = build_onnx(model, spec).SerializeToString()
        exported, weights = onnx.ModelProto.FromString(graphs[key]), model.state_dict()
        known = {initial.name: initial for initial in exported.graph.initializer}
        left_out = {name for name in weights if re.match(r"(top_left|bottom_right)\.0\.", name)}  # of the first stack
        left_out.add("bottom_right.1.heat.2.bias")  # equal to that of the other corner, and equal tensors are one
        assert weights.keys() - left_out <= known.keys()
        for name in weights.keys() & known.keys():
            rewrite(known[name], weights[name].numpy())
        return exported

    return build


@pytest.fixture
def export(tmp_path, exported_once):
    """A function that exports random network ``number`` with --dynamic, with a defect planted in the file if given."""

    def run(number, plant=None):
        config, largest = ARCHITECTURES[number // 4 % len(ARCHITECTURES)]
        model, rng = small_model(number, config), np.random.default_rng(number)
        save_checkpoint(tmp_path / "random.safetensors", model, SMALL_SPEC)

        def build(deployed, spec):
            exported = exported_once(deployed, spec)
            if plant is not None:
                plant(exported, rng, model)
            return exported

        request = ExportRequest(
            tmp_path / "random.safetensors", tmp_path / "bundle", sizes=(largest,), dynamic=True, force=True
        )
        seen, refused = [], False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bundle_export, "build_onnx", build)
            for backend in (TorchBackend, OnnxRuntimeBackend):
                patch.setattr(backend, "__call__", noisy(exact(backend), backend.name, number))
            try:
                export_bundle(request, on_verified=seen.append)
            except VerificationError:
                refused = True
        return Outcome(refused, *seen)

    return run


# Defects: each changes an exported model that is otherwise sound.


def swap_channels(exported, rng, _model):
    """Exchange two classes of one corner's heat, or the two channels of its offset."""
    output = rng.choice(["tl_heat", "br_heat", "tl_offset", "br_offset"])
    for initial in weights_of(exported, output):
        values = numpy_helper.to_array(initial)
        first, second = rng.permutation(len(values))[:2]
        order = np.arange(len(values))
        order[[first, second]] = second, first
        rewrite(initial, values[order])


def lose_an_offset(exported, rng, _model):
    for initial in weights_of(exported, rng.choice(["tl_offset", "br_offset"])):
        rewrite(initial, np.zeros_like(numpy_helper.to_array(initial)))


def turn_one_direction_of_pooling(exported, rng, _model):
    """Let a corner look for one of its edges on the wrong side, as the other corner does."""
    turned, other = rng.permutation([function.name for function in exported.functions])
    functions, prefix = {function.name: function for function in exported.functions}, rng.choice(["v_", "h_"])
    wrong = [node for node in functions[other].node if node.name.startswith(prefix)]
    nodes = [wrong.pop(0) if node.name.startswith(prefix) else node for node in list(functions[turned].node)]
    assert not wrong
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del functions[turned].node[:]
    functions[turned].node.extend(copies)


def shift_an_output(exported, rng, model):
    """Add 1e-3 of an output's largest value in the sample picture to all of it."""
    output = rng.choice(OUTPUT_NAMES)
    with Detector(TorchBackend(model), replace(SMALL_SPEC, dynamic=True, geometry="native")) as detector:
        largest = np.abs(getattr(detector.corner_maps(sample_picture())[0], output)).max()
    _, bias = weights_of(exported, output)
    rewrite(bias, numpy_helper.to_array(bias) + 1e-3 * largest)


def weights_of(exported, output):
    """Return weights and bias of the convolution that gives an output."""
    known = {one.name: one for one in exported.graph.initializer}
    (node,) = (node for node in exported.graph.node if output in node.output)
    return [known[name] for name in node.input[1:]]


def rewrite(initial, values):
    assert list(initial.dims) == list(values.shape)
    initial.CopyFrom(numpy_helper.from_array(values.astype(np.float32), initial.name))


def few_and_many(few):
    return [
        pytest.param(range(few), marks=pytest.mark.slow),  # the exporter takes seconds
        pytest.param(range(few, NETWORKS), marks=pytest.mark.soak),
    ]


DEFECTS = (swap_channels, lose_an_offset, turn_one_direction_of_pooling, shift_an_output)


@pytest.mark.parametrize("numbers", few_and_many(3), ids=str)
def test_no_sound_network_is_refused(export, numbers, record_property):
    outcomes = {number: export(number) for number in numbers}
    assert [number for number, outcome in outcomes.items() if outcome.refused] == []
    compared = sum(check.reference for outcome in outcomes.values() for check in outcome.verification.detections)
    ties = sum(outcome.near_ties for outcome in outcomes.values())
    assert compared >= 10 * len(outcomes)
    assert ties > 0 or len(outcomes) < 100, "no decision was close: the noise tried nothing"
    record_property("near ties", f"{ties} of {compared} detections")


@pytest.mark.parametrize("numbers", few_and_many(4), ids=str)
def test_every_planted_defect_is_refused(export, numbers):
    outcomes = {number: export(number, DEFECTS[number % len(DEFECTS)]) for number in numbers}
    accepted = [(number, DEFECTS[number % len(DEFECTS)].__name__) for number in numbers if not outcomes[number].refused]
    assert accepted == []

"""The shipped model as an ONNX file with one fault each, as an export, an edit or a wrong setting may bring it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cornernet_train.shapes_dataset import write_shapes

ORDER = [2, 0, 1, 5, 4, 3]  # of permuted classes


def shipped_with_scenes(shipped, folder, scenes):
    """Copy the shipped model's bundle, as ``tiny``, and draw so many ``scenes`` into a folder, and return it."""
    shutil.copytree(shipped, folder / "tiny")
    write_shapes(folder / "scenes", scenes, seed=77)
    return folder


def write_faulty_models(source, folder):
    """Write a file for each of FAULTS and return their paths by name."""
    paths = {}
    for name, fault in FAULTS.items():
        model = onnx.load(source)
        fault(model)
        paths[name] = folder / f"{name}.onnx"
        onnx.save(model, paths[name])
    return paths


def perturb(output, scale):
    """Change the weights of the convolution that gives an output."""

    def fault(model):
        (initial,) = _weights(model, output)[:1]
        weights = numpy_helper.to_array(initial)
        noise = np.random.default_rng(0).standard_normal(weights.shape)
        _replace(initial, weights + scale * np.abs(weights).mean() * noise)

    return fault


def perturb_stem(model):
    initial = next(one for one in model.graph.initializer if len(one.dims) == 4 and one.dims[1] == 3)
    weights = numpy_helper.to_array(initial)
    _replace(initial, weights + 0.5 * np.abs(weights).mean() * np.random.default_rng(0).standard_normal(weights.shape))


def exchange_embeddings(model):
    other = {"tl_embed": "br_embed", "br_embed": "tl_embed"}
    for node in model.graph.node:
        node.output[:] = [other.get(name, name) for name in node.output]


def permute_classes(model):
    for output in ("tl_heat", "br_heat"):
        for initial in _weights(model, output):
            _replace(initial, numpy_helper.to_array(initial)[ORDER])


def round_embeddings(model):
    """Let the embeddings be computed in float16, far from 0, where it has steps of 1."""
    for output in ("tl_embed", "br_embed"):
        bias = _weights(model, output)[1]
        _replace(bias, numpy_helper.to_array(bias) + 1500)
        node = _node(model, output)
        node.output[0] = f"{output}_wide"
        for kind, before, after in (
            (TensorProto.FLOAT16, f"{output}_wide", f"{output}_half"),
            (TensorProto.FLOAT, f"{output}_half", output),
        ):
            model.graph.node.append(helper.make_node("Cast", [before], [after], to=kind))


def setting(section, **values):
    """Change settings in the file's metadata."""

    def fault(model):
        (entry,) = (one for one in model.metadata_props if one.key == "cornernet")
        content = json.loads(entry.value)
        content["spec"][section] |= values
        entry.value = json.dumps(content)

    return fault


FAULTS = {
    "weights": perturb("tl_offset", 1.5),
    "stem": perturb_stem,
    "exchanged": exchange_embeddings,
    "classes": permute_classes,
    "half": round_embeddings,
    "channels": setting("normalisation", channel_order="rgb"),
    "suppression": setting("nms", method="hard", iou_threshold=0.1),
}


def _node(model, output):
    return next(node for node in model.graph.node if output in node.output)


def _weights(model, output):
    """Return weights and bias of the convolution that gives an output."""
    known = {one.name: one for one in model.graph.initializer}
    return [known[name] for name in _node(model, output).input[1:]]


def _replace(initial, values):
    initial.CopyFrom(numpy_helper.from_array(values.astype(np.float32), initial.name))

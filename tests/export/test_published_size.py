"""CornerNet-104 with random weights goes to ONNX within the project's bars: 60 s and 6 GiB.

The one place beside the benchmarks where time is asserted: the bars are promises to whoever exports on a small machine,
and both break easily without anything else noticing (a serialised copy of the weights costs 0.8 GB, and tracing can
fall into minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from places import python_path

from cornernet_export.model import CornerNet, preset

# Runs in a process of its own, for its peak memory is that of the whole process; prints one line of JSON.
EXPORT = """
import json, resource, sys, time

begin = time.perf_counter()
from collections import Counter
from pathlib import Path

import onnx

from cornernet_export.bundle_export import save_onnx
from cornernet_export.model import CornerNet, preset
from cornernet_export.onnx_graph import build_onnx
from cornernet_runtime.bundle.spec import ModelSpec

config = preset("cornernet-104")
names = tuple(f"class {index}" for index in range(config.classes))
spec = ModelSpec("cornernet-104", names, config.stride, config.modulus, (511, 511), (511, 511))
path = Path(sys.argv[1])
save_onnx(build_onnx(CornerNet(config).eval(), spec), path)
usage = resource.getrusage(resource.RUSAGE_SELF)
wall = time.perf_counter() - begin

model = onnx.load(path)
shape = lambda value: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
print(json.dumps({
    "wall_s": wall,
    "processor_s": usage.ru_utime + usage.ru_stime,
    "peak_rss_gib": usage.ru_maxrss / 2**20,
    "operators": Counter(node.op_type for node in model.graph.node),
    "functions": [function.name for function in model.functions],
    "inputs": {item.name: shape(item) for item in model.graph.input},
    "outputs": {item.name: shape(item) for item in model.graph.output},
    "weights": sum(len(item.raw_data) for item in model.graph.initializer) // 4,
}))
"""


pytestmark = [pytest.mark.slow, pytest.mark.serial]  # a time limit is part of the promise


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "model.onnx"
    process = subprocess.run(  # noqa: S603 - this interpreter with our own arguments
        [sys.executable, "-c", EXPORT, str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path(*sys.path)},
    )
    path.unlink(missing_ok=True)  # 0.8 GB
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_cornernet_104_exports_within_a_minute(report):
    # On a machine that does other work too, the time on the clock says little: then processor time stands for it, of
    # which a machine of its own would need no more on the clock, for the export waits for nothing.
    assert min(report["wall_s"], report["processor_s"]) <= 60, report


def test_cornernet_104_exports_within_6_gib(report):
    assert report["peak_rss_gib"] <= 6, report


def test_cornernet_104_is_convolutions_activations_additions_upsampling_and_one_node_a_corner(report):
    operators = report["operators"]
    assert set(operators) == {"Conv", "Relu", "Add", "Resize", "TopLeftPool", "BottomRightPool"}
    assert (operators["TopLeftPool"], operators["BottomRightPool"]) == (1, 1)
    assert operators["Resize"] == 2 * 5  # one a depth in each of two hourglasses
    assert sorted(report["functions"]) == ["BottomRightPool", "TopLeftPool"]


def test_cornernet_104_has_the_inputs_and_outputs_of_the_contract(report):
    assert report["inputs"] == {"image": [1, 3, 511, 511]}
    assert report["outputs"] == {
        "tl_heat": [1, 80, 128, 128],
        "br_heat": [1, 80, 128, 128],
        "tl_embed": [1, 1, 128, 128],
        "br_embed": [1, 1, 128, 128],
        "tl_offset": [1, 2, 128, 128],
        "br_offset": [1, 2, 128, 128],
    }


def test_cornernet_104_file_has_the_weights_that_inference_needs_and_no_others(report):
    with torch.device("meta"):
        model = CornerNet(preset("cornernet-104"))
    training_only = ("top_left.0.", "bottom_right.0.")
    needed = sum(value.numel() for name, value in model.named_parameters() if not name.startswith(training_only))
    # Of the two parameters of a batch norm one bias is left when it is folded, and none where that is zero, as it is
    # for most before training. Beside the weights the graph has a few constants, such as the factors of Resize.
    norms = sum(
        module.num_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and not name.startswith(training_only)
    )
    assert needed - 2 * norms - 100 < report["weights"] < needed - norms + 100

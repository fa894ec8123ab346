"""A network that says what a test wants, cornernet-detect, engines, and an account for which file permissions hold."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC
from onnx import TensorProto, helper, numpy_helper

from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_export.targets import PEAK_LOGIT, encode_boxes, ideal_maps
from cornernet_runtime.bundle.spec import spec_to_text
from cornernet_runtime.cli.detect import main
from cornernet_runtime.errors import CornerNetWarning
from cornernet_runtime.processing.maps import OUTPUT_NAMES

# In pixels of a frame of 126 rows and 190 columns, twice the input of SMALL_SPEC; best first: label, box, score.
PLANTED = (
    ("ant", (16.0, 16.0, 80.0, 61.0), 1 / (1 + np.exp(-PEAK_LOGIT))),
    ("bee", (100.5, 40.25, 161.0, 110.0), 0.75),
    ("cat", (30.0, 70.0, 90.0, 121.5), 0.25),
)


@pytest.fixture(scope="session")
def write_onnx():
    """Return a function that writes an ONNX file of constant outputs; the input goes nowhere."""

    def write(path, outputs, metadata=(), image=("image", (1, 3, *SMALL_SPEC.input_size)), element=TensorProto.FLOAT):
        nodes, infos = [], []
        for name, value in outputs.items():
            nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape))
        graph = helper.make_graph(
            nodes, "constant", [helper.make_tensor_value_info(image[0], element, image[1])], infos
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="session")
def small_outputs():
    """The six outputs that a model of SMALL_SPEC has, all zero, by name."""
    height, width = SMALL_SPEC.map_size
    channels = {"tl_heat": 3, "br_heat": 3, "tl_embed": 1, "br_embed": 1, "tl_offset": 2, "br_offset": 2}
    return {name: np.zeros((1, count, height, width), np.float32) for name, count in channels.items()}


@pytest.fixture(scope="session")
def planted():
    """What the model of ``planted_model`` finds in any frame of 126 rows and 190 columns."""
    return PLANTED


@pytest.fixture(scope="session")
def planted_model(made_once, write_onnx):
    """An ``.onnx`` file that sees the same three objects in every picture."""
    labels = np.array([SMALL_SPEC.class_names.index(name) for name, _, _ in PLANTED])
    targets = encode_boxes(
        np.array([box for _, box, _ in PLANTED]) / 2,
        labels,
        classes=3,
        map_size=SMALL_SPEC.map_size,
        input_size=SMALL_SPEC.input_size,
    )
    maps = ideal_maps(targets)
    for heat in (maps.tl_heat, maps.br_heat):
        for label, (_, _, score) in zip(labels, PLANTED, strict=True):
            peak = heat[label] == heat[label].max()
            heat[label] = np.where(peak, np.log(score / (1 - score)), -PEAK_LOGIT)
    outputs = {name: getattr(maps, name)[None] for name in OUTPUT_NAMES}
    properties = {"cornernet": spec_to_text(SMALL_SPEC)}
    return (
        made_once("planted", lambda folder: write_onnx(folder / "planted.onnx", outputs, properties)) / "planted.onnx"
    )


@pytest.fixture
def open_folder():
    """An empty folder that every account can reach; pytest's own are closed to all but one."""
    folder = Path(tempfile.mkdtemp(prefix="cornernet-test-"))
    folder.chmod(0o755)
    yield folder
    reopen(folder)
    shutil.rmtree(folder)


def reopen(folder):
    """Give back to its owner what a test closed."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        if path.is_dir():
            reopen(path)


@pytest.fixture
def unprivileged(open_folder):
    """Return a context in which file permissions hold, also where root runs the tests."""

    @contextlib.contextmanager
    def drop():
        account = os.geteuid()
        if account == 0:
            try:
                os.seteuid(65534)
            except OSError as error:
                pytest.skip(f"this root cannot become another account: {error}")
        try:
            try:
                next(open_folder.iterdir(), None)
            except PermissionError:
                pytest.skip(f"{open_folder.parent} is closed to other accounts")
            yield
        finally:
            os.seteuid(account)

    return drop


@pytest.fixture
def detect(bundle_path, capsys):
    """Return a function that runs cornernet-detect in this process: arguments in, (status, output, errors) out."""

    def run(*arguments):
        status = main([str(bundle_path), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return status, output, errors

    return run


@pytest.fixture
def engine(tensorrt, bundle, plugin_library, monkeypatch):
    """A bundle with an engine of one size that uses the plugin, in a process that has not read it yet."""
    monkeypatch.setenv("CORNERNET_PLUGIN", str(plugin_library))
    add_engine(EngineRequest(bundle))
    return fresh(tensorrt, bundle)


@pytest.fixture
def batches(tensorrt, batch_bundle_path, tmp_path):
    """A bundle with an engine of two sizes and batches of 2 to 4, without the plugin."""
    folder = shutil.copytree(batch_bundle_path, tmp_path / "batches")
    with pytest.warns(CornerNetWarning, match="corner pooling is built from standard operators"):
        add_engine(EngineRequest(folder))
    return fresh(tensorrt, folder)


def fresh(tensorrt, folder):
    """Forget what the build registered, called and launched."""
    tensorrt.registered.clear()
    tensorrt.surface.calls.clear()
    tensorrt.gpu.surface.calls.clear()
    tensorrt.gpu.launches = 0
    return folder

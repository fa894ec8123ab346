"""OpenVINO against ONNX Runtime on the same files, and against what is computed by hand."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC, small_model
from noise.rounding import exact
from onnx import TensorProto, helper
from places import ROOT, SHIPPED, python_path

from cornernet_export.corner_pool import OPSET, pool_function
from cornernet_export.model.corner_pool import Corner
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.verification.matching import Tolerance, compare_detections
from cornernet_export.verification.verify import compare_outputs
from cornernet_runtime import Detector
from cornernet_runtime.backends import openvino as module
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.backends.openvino import OpenVinoBackend
from cornernet_runtime.bundle.manifest import ONNX_NAME
from cornernet_runtime.bundle.spec import spec_to_text
from cornernet_runtime.errors import BackendError, ModelError, SizeError
from cornernet_runtime.machine import has_bfloat16
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_train.shapes import make_scene

openvino = pytest.importorskip("openvino", reason="OpenVINO is an extra")

DYNAMIC = replace(SMALL_SPEC, largest_size=(127, 191), dynamic=True, batch=(1, 1, 5), geometry="native")
METADATA = {"cornernet": spec_to_text(SMALL_SPEC)}
FLOAT32 = 1e-5  # of a map's largest value: both sum in float32, in different orders
BFLOAT16 = 5e-2  # eight bits a value, over all layers
HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not compute in bfloat16")


def run_apart(code, path, **variables):
    """Run code in a process of its own, which finds the path of a model as its first argument."""
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime"), **variables}
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours


@pytest.fixture(scope="module")
def dynamic_path(made_once):
    """The small network as a file of any size, in a folder by itself."""

    def make(folder):
        (folder / ONNX_NAME).write_bytes(build_onnx(small_model(), DYNAMIC).SerializeToString())

    return made_once("openvino", make, keep=True)


@pytest.fixture(scope="module")
def shipped_path(export_once):
    return export_once(SHIPPED, "tiny", sizes=((383, 383),), dynamic=True)


def noise(*shape):
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def largest_error(expected, found):
    return max(check.error for check in compare_outputs(expected, found, "", "", 1.0))


# What is computed.


@pytest.mark.parametrize(
    ("fixture", "shapes"),
    [
        ("bundle_path", [(1, 3, 63, 95)]),
        ("batch_bundle_path", [(2, 3, 63, 95), (4, 3, 95, 63), (3, 3, 63, 95)]),
        ("dynamic_path", [(1, 3, 127, 191), (1, 3, 15, 15), (2, 3, 63, 95), (5, 3, 127, 15), (1, 3, 127, 191)]),
    ],
)
def test_maps_are_those_of_onnx_runtime_at_every_shape(request, fixture, shapes):
    path = request.getfixturevalue(fixture) / ONNX_NAME
    reference, backend = OnnxRuntimeBackend(path), OpenVinoBackend(path)
    assert (backend.spec, backend.max_batch) == (reference.spec, reference.max_batch)
    for shape in shapes:
        images = noise(*shape)
        expected, found = reference(images), backend(images)
        for name in OUTPUT_NAMES:
            assert getattr(found, name).dtype == np.float32
            assert getattr(found, name).shape == getattr(expected, name).shape
        assert largest_error(expected, found) <= FLOAT32


def test_half_weights_are_computed_in_float32(checkpoint_path, export_once):
    path = export_once(checkpoint_path, precision="fp16", force=True) / ONNX_NAME
    images = noise(1, 3, 63, 95)
    # ONNX Runtime rounds to float16 between the operators.
    assert largest_error(OnnxRuntimeBackend(path)(images), OpenVinoBackend(path)(images)) <= 2e-2


@needs_bfloat16
def test_bfloat16_is_computed_when_asked_for_only(bundle_path):
    path = bundle_path / ONNX_NAME
    images = noise(1, 3, 63, 95)
    expected = OnnxRuntimeBackend(path)(images)
    found = OpenVinoBackend(path, precision="bf16")(images)
    assert 1e-4 < largest_error(expected, found) <= BFLOAT16
    assert found.tl_heat.dtype == np.float32
    assert largest_error(expected, OpenVinoBackend(path)(images)) <= FLOAT32


def test_what_the_doctor_takes_for_bfloat16_is_what_openvino_does():
    assert has_bfloat16() == HAS_BFLOAT16


def test_a_cpu_without_bfloat16_is_not_asked_for_it(bundle_path, monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendError, match=r"^this CPU does not compute in bfloat16; use the backend openvino$"):
        Detector.open(bundle_path, backend="openvino-bf16")
    Detector.open(bundle_path, backend="openvino").close()


@pytest.mark.parametrize("corner", Corner)
@pytest.mark.parametrize("side", [None, 40], ids=["free", "fixed"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 3, 5, 33), (1, 17, 40, 40), (3, 1, 40, 1)], ids=str)
def test_corner_pooling_is_exact(tmp_path, corner, side, shape):
    sides = shape if side else (None, None, None, None)
    path = pooling_model(tmp_path / "pool.onnx", corner, sides)
    compiled = openvino.Core().compile_model(module._read(openvino, path, (40, 40)), "CPU")
    vertical, horizontal = noise(*shape) - 9, noise(*shape)  # all below zero: a border of zeros would show
    (found,) = compiled([vertical, horizontal]).values()
    if corner is Corner.TOP_LEFT:
        rows = np.maximum.accumulate(vertical[:, :, ::-1], 2)[:, :, ::-1]
        columns = np.maximum.accumulate(horizontal[..., ::-1], 3)[..., ::-1]
    else:
        rows, columns = np.maximum.accumulate(vertical, 2), np.maximum.accumulate(horizontal, 3)
    np.testing.assert_array_equal(found, rows + columns)


def pooling_model(path, corner, shape):
    """Write a file of one corner's pooling."""
    node = helper.make_node(corner.value, ["vertical", "horizontal"], ["pooled"], domain="cornernet")
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("vertical", "horizontal", "pooled")
    ]
    model = helper.make_model(
        helper.make_graph([node], "pool", tensors[:2], tensors[2:]),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("cornernet", 1)],
        functions=[pool_function(corner, 40)],
    )
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "tolerance"),
    [
        ("openvino", Tolerance(output=FLOAT32, iou=0.999, score=1e-4, matched=1.0)),
        pytest.param(
            "openvino-bf16", Tolerance(output=BFLOAT16, iou=0.8, score=0.05, matched=0.8), marks=needs_bfloat16
        ),
    ],
)
@pytest.mark.parametrize("views", [{}, {"flip": True}, {"flip": True, "scales": (0.5, 1.0)}], ids=str)
def test_scenes_give_the_detections_of_onnx_runtime(shipped_path, backend, tolerance, views):
    with (
        Detector.open(shipped_path, "onnxruntime", **views) as reference,
        Detector.open(shipped_path, backend, **views) as detector,
    ):
        scenes = [make_scene(4242, index).image for index in range(4)]
        expected, found = reference.batch(scenes), detector.batch(scenes)
        checks = [compare_detections(*pair, "", "", tolerance) for pair in zip(expected, found, strict=True)]
    assert sum(check.reference for check in checks) >= 20
    assert all(check.passed for check in checks), checks


# How it is opened.


def test_it_is_opened_by_name_and_never_by_default(bundle_path):
    for path in (bundle_path, bundle_path / ONNX_NAME):
        with Detector.open(path, "openvino", flip=True, threads=1) as detector:
            assert (detector.backend.name, detector.flip) == ("openvino", True)
            with detector.clone() as other:
                assert other.backend.name == "openvino"
            options = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32"}
            for name, value in options.items():
                assert detector.backend._compiled.get_property(name) in (value, openvino.Type.f32)
        with Detector.open(path) as detector:
            assert detector.backend.name == "onnxruntime"


@needs_bfloat16
def test_bfloat16_has_a_name_of_its_own(bundle_path):
    with Detector.open(bundle_path, "openvino-bf16") as detector:
        assert detector.backend.name == "openvino-bf16"


def test_threads_below_one_are_refused(bundle_path):
    with pytest.raises(BackendError, match=r"^threads: expected 1 or more, got 0$"):
        Detector.open(bundle_path, "openvino", threads=0)


def test_without_openvino_the_command_to_get_it_is_named(bundle_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(BackendError, match=r"^OpenVINO is not installed; pip install openvino$"):
        Detector.open(bundle_path, "openvino")


def test_weights_beside_the_file_are_read(bundle_path, tmp_path):
    model, path, images = onnx.load(bundle_path / ONNX_NAME), tmp_path / ONNX_NAME, noise(1, 3, 63, 95)
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    assert path.stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    assert largest_error(OpenVinoBackend(bundle_path / ONNX_NAME)(images), OpenVinoBackend(path)(images)) == 0
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(ModelError, match=rf"^{path}: OpenVINO cannot load it: .*model\.onnx\.data"):
        OpenVinoBackend(path)


def test_nothing_is_sent_or_written_and_neither_torch_nor_onnx_is_loaded(bundle_path, tmp_path):
    code = """
import socket, sys
def connect(*arguments):
    print("connects to", arguments)
    raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = connect
from cornernet_runtime import Detector
Detector.open(sys.argv[1], backend="openvino").close()
print({"torch", "onnx", "openvino_telemetry"} & sys.modules.keys())
"""
    done = run_apart(code, bundle_path, HOME=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_after_another_thread_let_go_of_the_model_is_one(bundle_path):
    code = """
import signal, sys, threading
from cornernet_runtime import Detector
detectors = [Detector.open(sys.argv[1], backend="openvino")]
closing = threading.Thread(target=lambda: detectors.pop().close())
closing.start()
closing.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run_apart(code, bundle_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


# Files that are not ours, or not what their metadata says.


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=f"^{tmp_path / 'missing.onnx'}: no such file$"):
        OpenVinoBackend(tmp_path / "missing.onnx")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99, None])
def test_what_is_no_onnx_is_refused_in_one_line(bundle_path, tmp_path, part, capfd):
    content = (bundle_path / ONNX_NAME).read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model" if part is None else content[: int(part * len(content))])
    for spec in (None, SMALL_SPEC):
        with pytest.raises(ModelError) as caught:
            OpenVinoBackend(path, spec)
        message = f"{path}: " + ("not a CornerNet exported by " if part == 0.0 else "OpenVINO cannot load it: ")
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_with_our_outputs_and_metadata_opens(tmp_path, write_onnx, small_outputs):
    backend = OpenVinoBackend(write_onnx(tmp_path / "model.onnx", small_outputs, METADATA))
    assert backend.spec == SMALL_SPEC


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {}}, r"its metadata lacks the key 'cornernet'; export it with cornernet-export$"),
        ({"outputs": {"logits": np.zeros((1, 3), np.float32)}}, r"outputs missing: .* \(it has logits\)$"),
        ({"image": ("image", (1, 3, 95, 63))}, r"expected one input image \[batch, 3, 63, 95\], got {'image': "),
        ({"image": ("image", ("batch", 3, "height", "width"))}, r"got {'image': \[None, 3, None, None\]}$"),
        ({"element": TensorProto.FLOAT16}, "image is f16, not float32; export it with cornernet-export$"),
    ],
    ids=["metadata", "outputs", "rows and columns", "free sides", "half"],
)
def test_a_foreign_file_is_refused_as_by_onnx_runtime(tmp_path, write_onnx, small_outputs, change, message):
    arguments = {"outputs": small_outputs, "metadata": METADATA, **change}
    path = write_onnx(tmp_path / "model.onnx", **arguments)
    with pytest.raises(ModelError, match=f"^{path}: .*{message}"):
        OpenVinoBackend(path)


def test_an_operator_that_openvino_does_not_know_is_named(tmp_path):
    path = pooling_model(tmp_path / "model.onnx", Corner.TOP_LEFT, (1, 1, 4, 4))
    path.write_bytes(path.read_bytes().replace(b"cornernet", b"elsewhere"))  # of as many letters
    message = f"{path}: OpenVINO cannot load it: No conversion rule found for operations: elsewhere.TopLeftPool"
    with pytest.raises(ModelError, match=f"^{message}$"):
        OpenVinoBackend(path)


def test_outputs_of_unknown_rank_are_refused(tmp_path):
    names = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "target", *OUTPUT_NAMES)
    ]
    nodes = [helper.make_node("Reshape", ["image", "target"], [name]) for name in OUTPUT_NAMES]
    names[1].type.tensor_type.elem_type = TensorProto.INT64
    graph = helper.make_graph(nodes, "ranks", names[:2], names[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, METADATA)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"output tl_heat has shape \[\], its metadata says \[batch, 3, 16, 24\]$"):
        OpenVinoBackend(tmp_path / "model.onnx")


def test_outputs_that_disagree_with_the_metadata_are_named(tmp_path, write_onnx, small_outputs):
    swapped = {**small_outputs, "tl_embed": small_outputs["tl_offset"]}
    path = write_onnx(tmp_path / "model.onnx", swapped, METADATA)
    with pytest.raises(ModelError, match=r"output tl_embed has shape \[1, 2, 16, 24\], its metadata says \[batch, 1, "):
        OpenVinoBackend(path)


def test_sizes_that_the_file_does_not_take_are_refused(bundle_path):
    with pytest.raises(SizeError, match=r"^input size 63x63: this model was exported for 63x95$"):
        OpenVinoBackend(bundle_path / ONNX_NAME)(noise(1, 3, 63, 63))


# Use.


def test_maps_are_valid_until_the_next_call_and_lie_where_they_lay(bundle_path):
    run = functools.partial(exact(OpenVinoBackend), OpenVinoBackend(bundle_path / ONNX_NAME))  # noise goes onto copies
    first = run(noise(1, 3, 63, 95))
    kept = first.tl_heat.copy()
    np.testing.assert_array_equal(first.tl_heat, kept)
    second = run(noise(1, 3, 63, 95) + 1)
    assert first.tl_heat.ctypes.data == second.tl_heat.ctypes.data
    assert not np.array_equal(second.tl_heat, kept)


def test_clones_run_beside_each_other_and_outlive_the_first(dynamic_path):
    first = OpenVinoBackend(dynamic_path / ONNX_NAME)
    shapes = [(1, 3, 127, 191), (2, 3, 63, 95), (1, 3, 31, 63)]
    expected = [{name: getattr(first(noise(*shape)), name).copy() for name in OUTPUT_NAMES} for shape in shapes]
    clones = [first.clone() for _ in shapes]
    first.close()
    wrong = []

    def run(clone, shape, maps):
        for _ in range(20):
            found = clone(noise(*shape))
            wrong.extend(name for name in OUTPUT_NAMES if not np.array_equal(getattr(found, name), maps[name]))

    threads = [threading.Thread(target=run, args=job) for job in zip(clones, shapes, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert clones[0].name == "openvino"


def test_threads_that_open_files_at_the_same_time_share_one_core(monkeypatch):
    made, together = [], threading.Barrier(4)

    class Core:
        def __init__(self):
            time.sleep(0.1)
            made.append(self)

        def set_property(self, *_):
            pass

    monkeypatch.setattr(module, "import_openvino", lambda: SimpleNamespace(Core=Core))
    # The core of the process stays: without it an interrupt would end the process.
    monkeypatch.setattr(module, "_only_core", functools.cache(module._only_core.__wrapped__))
    threads = [threading.Thread(target=lambda: (together.wait(10), module._core())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1

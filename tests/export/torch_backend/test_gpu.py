"""The reference model as a network of the GPU pipeline: on a driver that is none, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import torch_network as torch_network_cases
from cases.pipeline_run import cases_of
from cases.small import small_model
from places import SHIPPED, SOURCE_ROOTS, SUPPORT, python_path

from cornernet_bench.models.open import open_model
from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model.rewrite import fold_batch_norms
from cornernet_export.torch_backend.cpu import open_checkpoint
from cornernet_export.torch_backend.gpu import CUDA, CUDA_FP32, TorchGpuBackend, TorchNetwork, for_gpu, open_on_gpu
from cornernet_export.torch_backend.work import told
from cornernet_export.verification.matching import box_iou
from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.errors import BackendError, CornerNetWarning
from cornernet_runtime.processing.geometry import place
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_train.shapes import make_scene

UNSEEN_SEED = 4242


@pytest.fixture(scope="module")
def outcomes(gpu_driver, kernel_cache, tmp_path_factory):
    """What went wrong in each case, or None."""
    report = tmp_path_factory.mktemp("torch_network") / "report.json"
    folders = [*SOURCE_ROOTS, SUPPORT]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(gpu_driver),
        "FAKE_ORDER": "-1",  # work is done as late as may be
        "CORNERNET_CACHE": str(kernel_cache),
        "PYTHONPATH": python_path(*folders),
    }
    command = [sys.executable, "-m", "cases.pipeline_run", str(report), "cases.torch_network"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    sys.stderr.write(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(report.read_text())


@pytest.mark.parametrize("case", cases_of(torch_network_cases))
def test_on_a_driver_that_is_none(case, outcomes):
    assert outcomes[case] is None, outcomes[case]


# The network rewritten.


def test_what_is_rewritten_for_a_gpu_computes_the_same():
    images = torch.randn(2, 3, 63, 95, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = fold_batch_norms(small_model())(images), for_gpu(small_model(), half=False)(images)
    for one, want in zip(found, expected, strict=True):
        assert (one - want).abs().max() <= 1e-5 * want.abs().max()


def test_in_half_only_embedding_and_offset_end_in_float32():
    images = torch.randn(2, 3, 63, 95, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = small_model()(images), for_gpu(small_model(), half=True)(images.half())
    assert [one.dtype for one in found] == [torch.float16] * 2 + [torch.float32] * 4
    for one, want in zip(found, expected, strict=True):
        assert (one - want).abs().max() <= 2e-2 * want.abs().max()  # what an export in fp16 is allowed


def test_weights_lie_channels_last():
    for half in (False, True):
        weights = [one for one in for_gpu(small_model(), half=half).parameters() if one.ndim == 4]
        assert len(weights) > 20
        assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)


# What is refused.


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch is built with CUDA")
@pytest.mark.parametrize("backend", [CUDA, CUDA_FP32])
def test_without_cuda_in_pytorch_the_command_to_get_it_is_named(checkpoint_path, backend):
    with pytest.raises(BackendError, match=r"PyTorch .* is built without CUDA; pip install --force-reinstall torch"):
        open_model(checkpoint_path, backend)


def test_a_gpu_that_pytorch_cannot_use_is_told(checkpoint_path, monkeypatch):
    class Device:
        name = "NVIDIA H200"

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("cornernet_export.torch_backend.gpu.CudaDevice", Device)
    with pytest.raises(BackendError, match=r"built for CUDA 13\.0 and cannot use NVIDIA H200; update the NVIDIA"):
        open_model(checkpoint_path, CUDA)


def test_bundles_do_not_run_in_pytorch(bundle_path):
    with pytest.raises(BackendError, match="torch-cuda runs checkpoints"):
        open_model(bundle_path, CUDA)


def test_a_backend_that_does_not_exist_is_refused_with_those_there_are(checkpoint_path):
    there_are = "torch, torch-fp16, torch-cuda, torch-cuda-fp32 or published"
    with pytest.raises(BackendError, match=f"runs in {there_are}; export it"):
        open_model(checkpoint_path, "onnxruntime")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 3.00 GiB "
                "of which 1.25 GiB is free. Process 1 has"
            ),
            r"^weights: the GPU has too little memory \(.*allocate 2\.00 GiB, 1\.25 GiB is free\); close .* size$",
        ),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"),
            r"^weights: PyTorch .* cannot run it on this GPU: .* on the device; cornernet-doctor shows what there is$",
        ),
        (RuntimeError(), "this GPU: RuntimeError; cornernet-doctor"),
    ],
)
def test_what_pytorch_says_is_told_in_a_line(error, message):
    with pytest.raises(BackendError, match=message), told("weights"):
        raise error


# On a GPU.


@pytest.fixture
def gpu():
    """A GPU that PyTorch can use; warnings of ours, such as that a capture failed, are errors."""
    reason = None if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU"
    if reason and os.environ.get("CORNERNET_REQUIRE_GPU") == "1":
        pytest.fail(f"CORNERNET_REQUIRE_GPU=1, but {reason}")
    if reason:
        pytest.skip(reason)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CornerNetWarning)
        yield CudaDevice()


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(UNSEEN_SEED, number).image for number in range(4)]


def assert_same(found, expected):
    """Assert that two detections of one frame are the same, as far as float16 and TF32 compute the same."""
    want = expected.above(0.3)
    assert len(want) >= 3
    same = (box_iou(want.boxes, found.boxes) >= 0.9) & (want.labels[:, None] == found.labels)
    same &= np.abs(want.scores[:, None] - found.scores) <= 0.05
    assert same.any(axis=1).mean() >= 0.9  # what a TensorRT engine in float16 has to match too


def spoil(device):
    """Take what memory PyTorch thinks nobody has, and write to it."""
    torch.cuda.empty_cache()
    blocks = [torch.full((size << 18,), float("nan"), device=f"cuda:{device.number}") for size in (1, 4, 16, 64) * 4]
    torch.cuda.synchronize(device.number)
    del blocks
    torch.cuda.empty_cache()


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_a_captured_run_gives_what_the_first_gave_whatever_becomes_of_pytorchs_memory(gpu, scenes, half):
    with open_on_gpu(SHIPPED, half=half, flip=True) as detector, open_checkpoint(SHIPPED, flip=True) as slow:
        assert detector.pipeline is not None
        first = [detector(scene) for scene in scenes]  # that of the first is enqueued and captured, the others replay
        bound = detector.backend.network.bind((2, 3, *detector.spec.input_size))
        stream = detector.backend.device.stream
        eager = []
        for _ in range(2):
            bound.enqueue(int(stream.handle))
            stream.sync()
            eager.append([one.clone() for one in bound.outputs])
            spoil(gpu)
        assert all(torch.equal(one, two) for one, two in zip(*eager, strict=True))
        for scene, before in zip(scenes, first, strict=True):
            spoil(gpu)
            found = detector(scene)
            assert np.array_equal(found.boxes, before.boxes)
            assert np.array_equal(found.scores, before.scores)
            assert_same(found, slow(scene))


def test_two_sizes_share_a_pool(gpu, scenes):
    checkpoint = load_checkpoint(SHIPPED)
    spec = replace(checkpoint.spec, dynamic=True, geometry="native")
    model = for_gpu(checkpoint.model, half=True).to(torch.device("cuda", gpu.number))
    torch.cuda.synchronize(gpu.number)
    with Detector.around(TorchGpuBackend(TorchNetwork(model, gpu, spec), gpu), spec) as detector:
        frames = [scenes[0][:120, :200], scenes[1][:200, :120]]
        expected = [detector(frame) for frame in frames]
        assert {place(frame.shape[:2], spec)[0].input_size for frame in frames} == {(127, 223), (223, 127)}
        for _ in range(3):
            spoil(gpu)
            for frame, want in zip(frames, expected, strict=True):
                assert np.array_equal(detector(frame).scores, want.scores)


def test_two_clones_in_two_threads(gpu, scenes):
    one = open_on_gpu(SHIPPED)
    two = one.clone()
    expected = [one(scene) for scene in scenes]
    problems = []

    def detect(detector):
        try:
            for number in range(200):
                assert_same(detector(scenes[number % 4]), expected[number % 4])
        except BaseException as error:  # noqa: BLE001 - raised again below
            problems.append(error)

    threads = [threading.Thread(target=detect, args=(detector,)) for detector in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    one.close()
    spoil(gpu)
    assert_same(two(scenes[0]), expected[0])
    two.close()


def test_memory_is_given_back(gpu, scenes):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(gpu.number)
    with open_on_gpu(SHIPPED) as detector:
        detector(scenes[0])
        assert torch.cuda.memory_reserved(gpu.number) > before
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(gpu.number) <= before


@pytest.mark.parametrize(("half", "tolerance"), [(False, 5e-3), (True, 2e-2)], ids=["fp32", "fp16"])  # TF32, float16
@pytest.mark.usefixtures("gpu")
def test_maps_of_the_backend_are_those_of_the_cpu(scenes, half, tolerance):
    with open_on_gpu(SHIPPED, half=half) as fast, open_checkpoint(SHIPPED) as slow:
        found, expected = (detector.corner_maps(scenes[0])[0] for detector in (fast, slow))
    for name in OUTPUT_NAMES:
        want = getattr(expected, name)
        assert np.abs(getattr(found, name) - want).max() <= tolerance * np.abs(want).max(), name

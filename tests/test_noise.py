"""The switch that perturbs every network's outputs: of the right size, the same for the same image, everywhere."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from cases.small import small_model
from noise.rounding import SIZE, exact, noisy
from places import SOURCE_ROOTS, SUPPORT

from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime.processing.maps import OUTPUT_NAMES


@pytest.fixture
def backends():
    """A network without noise, and with that of two seeds."""
    backend = TorchBackend(small_model())
    plain = exact(TorchBackend)
    calls = (plain, noisy(plain, "torch", 1), noisy(plain, "torch", 2))
    return [functools.partial(call, backend) for call in calls]


def test_noise_is_at_most_a_millionth_of_the_largest_value_and_reaches_half_of_it(backends):
    plain_run, first, _ = backends
    images = np.random.default_rng(0).standard_normal((2, 3, 63, 95), np.float32)
    plain, moved = plain_run(images), first(images)
    for name in OUTPUT_NAMES:
        for before, after in zip(getattr(plain, name), getattr(moved, name), strict=True):
            error = np.abs(after - before).max() / np.abs(before).max()
            assert SIZE / 2 < error < SIZE * 1.2  # float32 rounds what is added


def test_an_image_gets_the_same_noise_alone_and_in_a_batch_and_another_with_another_seed(backends):
    _, first, second = backends
    images = np.random.default_rng(0).standard_normal((2, 3, 63, 95), np.float32)
    together, alone = first(images), first(images[1:])
    assert np.allclose(together.tl_heat[1], alone.tl_heat[0], rtol=0, atol=1e-5)
    assert not np.array_equal(second(images).tl_heat, together.tl_heat)


def test_processes_that_tests_start_have_the_noise_too():
    code = "from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend as Backend\n"
    code += "print(hasattr(Backend.__call__, '__wrapped__'))"
    for seed, expected in (("3", "True"), ("", "False")):
        path = os.pathsep.join(map(str, [SUPPORT / "noise", *SOURCE_ROOTS]))
        environment = {**os.environ, "PYTHONPATH": path, "CORNERNET_TEST_NOISE": seed}
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected

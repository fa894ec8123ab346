"""Ranges of tensors: histograms held against NumPy's percentiles, and ranges of a network against its own values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from cornernet_export.int8 import ranges as int8_ranges
from cornernet_export.int8.ranges import BINS, Histogram, collect_ranges, tensor_sizes
from cornernet_runtime.errors import VerificationError


@pytest.fixture(scope="module")
def model(bundle_path):
    return onnx.load(bundle_path / "model.onnx")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    return [rng.standard_normal((1, 3, 63, 95), np.float32) * scale for scale in (0.5, 2)]


def histogram(*parts):
    result = Histogram()
    for part in parts:
        result.add(np.asarray(part, np.float32))
    return result


def values_of(model, names, images):
    """Return all values of tensors on the images, by name."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    runs = [session.run(names, {"image": image}) for image in images]
    return {name: np.stack([run[index] for run in runs]) for index, name in enumerate(names)}


@pytest.mark.parametrize("share", [0.0, 1e-3, 1e-2])
def test_range_is_the_percentiles_to_a_bin(share):
    values = np.random.default_rng(0).normal(0.3, 2, (7, 100_003)).astype(np.float32)
    found = histogram(*values)
    low, high = found.range(share)
    bin_width = 2 * found.limit / BINS
    assert low == pytest.approx(np.percentile(values, 50 * share), abs=1.01 * bin_width)
    assert high == pytest.approx(np.percentile(values, 100 - 50 * share), abs=1.01 * bin_width)


def test_bins_are_fine_whatever_the_size_of_the_values():
    for scale in (1e-4, 1, 1e6):
        found = histogram(np.array([0.4, -1, 0.7]) * scale)
        assert found.range(0) == pytest.approx((-scale, 0.7 * scale))
        assert found.limit <= 2.001 * scale


def test_order_and_division_of_values_do_not_matter():
    values = np.random.default_rng(1).standard_normal(5000) * np.linspace(0.01, 40, 5000)
    rising, falling = histogram(*np.split(values, 10)), histogram(*reversed(np.split(values, 10)))
    for other in (falling, histogram(values)):
        # float32 may put a value that lies on the edge of a bin into either.
        assert np.abs(rising.counts - other.counts).sum() <= 10
        assert (other.limit, other.counts.sum()) == (256, 5000)


def test_one_outlier_in_a_million_is_left_out():
    values = np.random.default_rng(2).uniform(0, 1, 1_000_000)
    values[123] = 100
    low, high = histogram(values).range()
    assert low == 0
    assert high == pytest.approx(1, abs=0.1)
    assert histogram(values).range(0)[1] == 100


def test_zero_is_within_the_range():
    assert histogram([3, 4, 5]).range(0) == (0, 5)
    assert histogram([-3, -4, -5]).range(0) == (-5, 0)
    assert histogram([0, 0]).range(0) == (0, 0)


def test_ranges_of_a_network_are_those_of_its_values(model, images):
    names = ["conv2d", "relu", "_symbolic"]
    ranges = collect_ranges(model, ["image", *names], images)
    expected = values_of(model, names, images) | {"image": np.stack(images)}
    for name, (low, high) in ranges.items():
        width = float(np.ptp(expected[name])) / 500
        # Fewer than 2e5 values a tensor: none is left out.
        assert low == pytest.approx(min(0, expected[name].min()), abs=width), name
        assert high == pytest.approx(expected[name].max(), abs=width), name


def test_it_takes_the_threads_that_the_process_may_use(model, images, monkeypatch):
    given = []
    session = ort.InferenceSession
    monkeypatch.setattr(int8_ranges, "default_threads", lambda: 3)
    monkeypatch.setattr(
        ort, "InferenceSession", lambda model, options, **more: given.append(options) or session(model, options, **more)
    )
    collect_ranges(model, ["relu"], images[:1])
    assert [options.intra_op_num_threads for options in given] == [3]


def test_little_memory_changes_nothing(model, images, monkeypatch):
    names = [node.output[0] for node in model.graph.node]
    expected = collect_ranges(model, names, images)
    runs = []
    run = ort.InferenceSession.run
    monkeypatch.setattr(ort.InferenceSession, "run", lambda self, *given: runs.append(given[0]) or run(self, *given))
    monkeypatch.setattr(int8_ranges, "MEMORY", 200_000)
    assert collect_ranges(model, names, images) == expected
    sizes = tensor_sizes(model, images[0].shape)
    assert len(runs) > 4
    assert all(len(names) == 1 or 4 * sum(sizes[name] for name in names) <= 200_000 for names in runs)


def test_sizes_of_tensors_are_those_that_come_out(model, images):
    names = [node.output[0] for node in model.graph.node if not node.output[0].endswith(("heat", "embed", "offset"))]
    values = values_of(model, names, images[:1])
    sizes = tensor_sizes(model, images[0].shape)
    assert {name: sizes[name] for name in names} == {name: value[0].size for name, value in values.items()}


def test_values_that_are_not_finite_are_refused(model, images):
    broken = images[0].copy()
    broken[0, 0, 5, 5] = np.inf
    with pytest.raises(VerificationError, match="not finite on a calibration picture"):
        collect_ranges(model, ["relu"], [broken])

"""``cornernet-bench latency``: what is opened, what is measured, and what is said and written of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from cases.report_schema import problems
from cases.small import SMALL_SPEC, small_model
from servers.interrupts import interrupting

from cornernet_bench.cli import main
from cornernet_bench.latency import cautions
from cornernet_bench.latency import measure as latency_module
from cornernet_bench.latency.baseline_run import open_baseline
from cornernet_bench.latency.measure import measure
from cornernet_bench.latency.request import LatencyRequest
from cornernet_bench.latency.tables import blocks
from cornernet_bench.measuring import measurement
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.subject import Subject
from cornernet_bench.reports.blocks import Line
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime import Detector
from cornernet_runtime.errors import BackendError, CornerNetError, SizeError

FRAME = np.zeros((50, 70, 3), np.uint8)


def latency(model, *more):
    return main(["latency", str(model), "--iterations", "3", "--warm-up", "1", "--frame", "60x90", *map(str, more)])


@pytest.fixture(scope="module")
def reports(checkpoint_path, bundle_path, tmp_path_factory):
    """What --json wrote, by what was run."""
    folder = tmp_path_factory.mktemp("latency")
    runs = {
        "plain": (bundle_path, "--threads", 1),
        "baseline": (checkpoint_path, "--batch", "2,1", "--flip", "--baseline"),
        "workers": (bundle_path / "model.onnx", "--workers", 2, "--scales", "0.5,1"),
        "cpu_time": (checkpoint_path, "--threads", 1, "--cpu-time", "--baseline"),
    }
    for name, (model, *flags) in runs.items():
        assert latency(model, *flags, "--json", folder / f"{name}.json") == 0
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in runs}


# The report.


@pytest.mark.parametrize("name", ["plain", "baseline", "workers", "cpu_time"])
def test_the_report_is_what_the_schema_says(reports, name):
    assert problems(reports[name], "latency") == []


def test_the_schema_knows_every_key_and_refuses_others(reports):
    wrong = [
        {key: value for key, value in reports["plain"].items() if key != "machine"},
        reports["plain"] | {"surprise": 1},
        reports["plain"] | {"results": []},
        reports["plain"] | {"schema_version": 2},
        reports["plain"] | {"model": reports["plain"]["model"] | {"precision": "fp8"}},
        reports["plain"] | {"workers": {"count": 1}},
    ]
    assert all(problems(report, "latency") for report in wrong)


def test_the_model_and_what_was_asked_for_are_in_the_report(reports, bundle_path, checkpoint_path):
    plain, baseline, workers = reports["plain"], reports["baseline"], reports["workers"]
    assert [report["model"]["path"] for report in reports.values()] == [
        str(bundle_path),
        str(checkpoint_path),
        str(bundle_path / "model.onnx"),
        str(checkpoint_path),
    ]
    backends = [report["model"]["backend"] for report in reports.values()]
    assert backends == ["onnxruntime", "torch", "onnxruntime", "torch"]
    assert [report["model"]["flip"] for report in reports.values()] == [False, True, False, False]
    assert workers["model"]["scales"] == [0.5, 1.0]
    assert plain["model"]["input_sizes"] == [[63, 95]]
    assert plain["frame_sizes"] == [[60, 90]]
    assert (plain["frames"], plain["iterations"], plain["warm_up"], plain["partial"]) == ("drawn", 3, 1, False)
    assert plain["excluded"] == ["reading and decoding of image files"]
    assert plain["machine"]["threads"]["onnxruntime"] == plain["machine"]["threads"]["opencv"] == 1
    assert baseline["baseline_weights"] == str(checkpoint_path)
    assert 0 < plain["model"]["load_s"] < 60
    assert 0 < plain["model"]["first_inference_ms"] < 60_000
    assert plain["model"]["peak_rss_mib"] > 50
    assert plain["model"]["device_memory_mib"] is None


def test_stages_by_the_host_clock_add_up_to_the_whole(reports):
    for result in reports["baseline"]["results"]:
        for measured, names in (
            (result["model"], ["preprocess", "network", "decode", "soft_nms", "other"]),
            (result["baseline"], ["preprocess", "upload", "network", "decode", "download", "soft_nms", "other"]),
        ):
            assert list(measured["stages"]) == names
            assert measured["clock"] == "host"
            assert measured["gpu_compute"] is None
            parts = sum(stage["mean_ms"] for stage in measured["stages"].values())
            assert parts == pytest.approx(measured["end_to_end"]["mean_ms"])
            assert {stage["count"] for stage in measured["stages"].values()} == {3}
            frames_per_second = 1000 * result["batch"] / measured["end_to_end"]["mean_ms"]
            assert measured["throughput_fps"] == pytest.approx(frames_per_second)


def test_cpu_time_is_the_clock_of_both_where_it_is_asked_for(reports):
    (result,) = reports["cpu_time"]["results"]
    for measured in (result["model"], result["baseline"]):
        assert measured["clock"] == "process"
        parts = sum(stage["mean_ms"] for stage in measured["stages"].values())
        assert parts == pytest.approx(measured["end_to_end"]["mean_ms"])


def test_cpu_time_is_refused_where_it_says_nothing(checkpoint_path):
    for threads in (0, 2):
        with pytest.raises(CornerNetError, match=r"^--cpu-time adds up all threads .*: add --threads 1"):
            measure(LatencyRequest(Subject(checkpoint_path, threads=threads), cpu_time=True))


@pytest.mark.parametrize(
    "command", [["latency", "m"], ["tune", "m", "--annotations", "a", "--images", "i", "--output", "o"]]
)
def test_cpu_time_of_several_threads_is_wrong_usage(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--cpu-time", "--threads", "2"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: --cpu-time adds up all threads: add --threads 1\n")


def test_a_size_that_the_model_does_not_take_says_what_to_type_next(bundle_path, capsys):
    assert main(["latency", str(bundle_path), "--size", "300x300"]) == 1
    said = "error: input size 300x300: this model was exported for 63x95; without --size the model gets its own\n"
    assert capsys.readouterr().err == said


def test_reports_of_cpu_time_say_so(checkpoint_path, tmp_path, capsys):
    page = tmp_path / "a.html"
    few = ["--iterations", "1", "--warm-up", "1", "--baseline", "--html", str(page)]
    assert main(["latency", str(checkpoint_path), "--threads", "1", "--cpu-time", *few]) == 0
    told = capsys.readouterr().out
    assert "milliseconds of CPU time, p50" in page.read_text()
    for heading in ("CPU ms p50", "published CPU ms", "here CPU ms"):
        assert heading in told
        assert heading in page.read_text()


def test_random_weights_of_the_baseline_are_said_once(checkpoint_path):
    report = measure(LatencyRequest(Subject(checkpoint_path), iterations=1, warm_up=1, baseline=True))
    for weights, said in (
        ("random weights of x", "flip off, random weights of x;"),
        ("a.pkl", "flip off, weights a.pkl;"),
    ):
        lines = [block.text for block in blocks(replace(report, baseline_weights=weights)) if isinstance(block, Line)]
        assert sum(said in line for line in lines) == 1


def test_batches_come_in_the_order_asked_for_with_what_the_network_took(reports):
    # The torch backend takes sixteen images a run, and the mirror images are some of them.
    found = [(result["batch"], result["network_batch"]) for result in reports["baseline"]["results"]]
    assert found == [(2, 4), (1, 2)]


def test_ratios_are_those_of_the_medians(reports):
    for result in reports["baseline"]["results"]:
        # A busy machine leaves some of them out.
        assert set(result["ratios"]) <= {"preprocess", "network", "decode", "soft_nms", "end_to_end"}
        for name, ratio in result["ratios"].items():
            both = [
                result[who]["end_to_end"] if name == "end_to_end" else result[who]["stages"][name]
                for who in ("baseline", "model")
            ]
            assert ratio == pytest.approx(both[0]["p50_ms"] / both[1]["p50_ms"])
    assert reports["plain"]["results"][0]["ratios"] == {}
    assert reports["plain"]["results"][0]["calls"] == 3


def test_workers_are_measured_after_the_batches(reports):
    workers = reports["workers"]["workers"]
    assert (workers["count"], workers["batch"], workers["end_to_end"]["count"]) == (2, 1, 6)
    assert workers["throughput_fps"] > 0
    assert reports["plain"]["workers"] is None


# The terminal.


def test_tables_name_stages_figures_and_both_contestants(checkpoint_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(measurement, "MOST_SPREAD", 1e9)  # however busy the machine is
    assert latency(checkpoint_path, "--baseline", "--workers", 2) == 0
    said = capfd.readouterr()
    assert said.err == ""
    lines = [" ".join(line.split()) for line in said.out.splitlines() if line.strip()]
    assert lines[0] == f"{checkpoint_path}: small in torch, fp32, input 63x95, flip off"
    assert "stage p50 ms p90 p95 p99 mean std spread" in lines
    assert "stage published ms share here ms share times as fast" in lines
    firsts = [line.split()[0] for line in lines]
    for name in ("preprocess", "network", "decode", "soft-NMS", "other", "end"):
        assert firsts.count(name) == 2, name
    assert firsts.count("upload") == firsts.count("download") == 1  # of the baseline only
    (workers,) = (line for line in lines if line.startswith("2 workers, 1 frame a call each: "))
    assert workers.endswith("(p95), by the host's clock")
    assert "in no figure: reading and decoding of image files" in said.out


def test_no_times_as_fast_are_printed_where_times_spread_too_far(checkpoint_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for module in (measurement, cautions):
        monkeypatch.setattr(module, "MOST_SPREAD", -1.0)
    assert latency(checkpoint_path, "--baseline") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "stage published ms share here ms share ──" in said
    assert "times spread too far to tell how many times as fast the model is" in said


def test_pictures_of_a_folder_are_measured_on(bundle_path, tmp_path):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((40 + number, 50, 3), np.uint8))
    assert (
        main(["latency", str(bundle_path), "--iterations", "1", "--images", str(tmp_path), "--json", "/dev/null"]) == 0
    )
    report = measure(LatencyRequest(Subject(bundle_path), iterations=1, warm_up=1, images=tmp_path))
    assert (report.frames, report.frame_sizes) == (str(tmp_path), ((40, 50), (41, 50)))


# Interrupts.


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_measured_and_says_so(bundle_path, tmp_path, capfd, monkeypatch):
    # The first call, one of each batch, one to warm up: the sixth is the second timed one.
    interrupting(monkeypatch, 6)
    assert latency(bundle_path, "--batch", "1,2", "--workers", 2, "--json", tmp_path / "a.json") == 130
    report = json.loads((tmp_path / "a.json").read_text())
    assert problems(report, "latency") == []
    assert report["partial"] is True
    assert [(result["batch"], result["calls"]) for result in report["results"]] == [(1, 1)]
    assert report["workers"] is None
    said = capfd.readouterr().out
    assert "drawn; 1 of 3 calls after 1 to warm up" in said
    assert "interrupted: these are partial results" in said


def test_an_interrupt_in_a_later_warm_up_keeps_the_batches_before(bundle_path, monkeypatch):
    interrupting(monkeypatch, 8)  # four timed and untimed calls of the first batch, then the warm-up of the second
    report = measure(LatencyRequest(Subject(bundle_path), batches=(1, 2), iterations=3, warm_up=1))
    assert [(result.batch, result.model.end_to_end.count) for result in report.results] == [(1, 3)]
    assert report.partial


@pytest.mark.parametrize("call", [1, 3])
def test_an_interrupt_before_anything_is_measured_leaves_no_report(bundle_path, tmp_path, capfd, monkeypatch, call):
    interrupting(monkeypatch, call)
    assert latency(bundle_path, "--json", tmp_path / "a.json") == 130
    assert capfd.readouterr().err.endswith("interrupted\n")
    assert not (tmp_path / "a.json").exists()


# What is opened.


def test_a_size_fits_frames_into_that_input(checkpoint_path, batch_bundle_path):
    for model, size in ((checkpoint_path, (127, 79)), (batch_bundle_path, (95, 63))):
        request = LatencyRequest(Subject(model, size=size, flip=True), iterations=1, warm_up=1)
        with open_detector(request.subject) as detector:
            assert detector.spec.sizes == (size,)
            assert detector.flip
            assert len(detector(FRAME)) > 0
        assert measure(request).model.input_sizes == (size,)


def test_a_size_that_the_model_does_not_take_is_refused(checkpoint_path, bundle_path):
    with pytest.raises(SizeError, match="this model was exported for 63x95"):
        open_detector(Subject(bundle_path, size=(63, 63)))
    with pytest.raises(SizeError, match="input side 64: this network needs one less than a multiple of 16"):
        open_detector(Subject(checkpoint_path, size=(64, 63)))


def test_threads_are_for_onnx_runtime_and_pytorch(bundle_path, checkpoint_path):
    expected = open_detector(Subject(bundle_path))(FRAME)
    for model in (bundle_path, bundle_path / "model.onnx"):
        with open_detector(Subject(model, threads=1, backend="onnxruntime")) as detector:
            np.testing.assert_allclose(detector(FRAME).scores, expected.scores, rtol=1e-4)
    with open_detector(Subject(checkpoint_path, threads=1)) as detector:
        assert detector.backend.name == "torch"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino-bf16"])
def test_int8_is_int8_whatever_the_rest_is_computed_in(backend, checkpoint_path, monkeypatch):
    def opened(_request):
        network = TorchBackend(small_model())
        network.name = backend
        return Detector(network, replace(SMALL_SPEC, precision="int8", int8_target="cpu"))

    monkeypatch.setattr(latency_module, "open_detector", opened)
    assert measure(LatencyRequest(Subject(checkpoint_path), iterations=1, warm_up=1)).model.precision == "int8"


def test_a_baseline_without_pytorch_is_refused_whatever_the_threads(bundle_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for threads in (0, 1):
        with pytest.raises(BackendError, match="PyTorch, which is not installed"):
            measure(LatencyRequest(Subject(bundle_path, threads=threads), baseline=True))


# The baseline.


def test_the_baseline_looks_at_one_scale_and_one_input(checkpoint_path):
    request = LatencyRequest(Subject(checkpoint_path))
    with pytest.raises(CornerNetError, match="one scale"):
        open_baseline(request, Detector(TorchBackend(small_model()), SMALL_SPEC, scales=(0.5, 1)), [FRAME])
    several = replace(SMALL_SPEC, largest_size=(95, 95), other_sizes=((95, 63),))
    with pytest.raises(CornerNetError, match="name it with --size HxW"):
        open_baseline(request, Detector(TorchBackend(small_model()), several), [FRAME, FRAME.transpose(1, 0, 2)])
    native = replace(SMALL_SPEC, dynamic=True, geometry="native")
    with pytest.raises(CornerNetError, match="70x120 exceeds the model's largest"):
        open_baseline(request, Detector(TorchBackend(small_model()), native), [np.zeros((70, 120, 3), np.uint8)])


def test_the_baseline_sees_what_the_model_sees(tmp_path):
    path = tmp_path / "native.safetensors"
    spec = replace(SMALL_SPEC, dynamic=True, geometry="native", decode=replace(SMALL_SPEC.decode, top_k=40))
    save_checkpoint(path, small_model(), spec)
    request = LatencyRequest(Subject(path, flip=True), baseline=True)
    frame = np.random.default_rng(0).integers(0, 256, (62, 94, 3), np.uint8)
    with open_detector(request.subject) as detector:
        expected = detector(frame)
        pipeline, source = open_baseline(request, detector, [frame])
    assert source == str(path)
    found = pipeline(frame)
    np.testing.assert_allclose(found.scores[:20], expected.scores[:20], rtol=1e-4)


# Wrong usage and failures.


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["m", "--batch", "0"],
        ["m", "--batch", "1,1"],
        ["m", "--batch", "1,"],
        ["m", "--iterations", "0"],
        ["m", "--workers", "-1"],
        ["m", "--size", "511"],
        ["m", "--frame", "9x9", "--images", "d"],
        ["m", "--frame", "0x9"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(["latency", *arguments])
    assert caught.value.code == 2


def test_a_missing_model_is_one_line_and_status_1(tmp_path, capfd):
    assert latency(tmp_path / "missing") == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {tmp_path / 'missing'} does not exist")


def test_a_report_that_could_not_be_written_is_refused_before_the_work(tmp_path, capfd):
    assert latency(tmp_path / "missing", "--json", tmp_path / "no" / "a.json") == 1
    assert capfd.readouterr().err.startswith(f"error: cannot write {tmp_path / 'no' / 'a.json'}: there is no folder ")

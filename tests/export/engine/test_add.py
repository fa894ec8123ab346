"""Building engines, on doubles with the real classes' attributes and arguments, ONNX Runtime computing the network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest

from cornernet_export.engine.add import STAGE, EngineRequest, add_engine
from cornernet_export.engine.build import EngineOptions
from cornernet_export.engine.progress import run_watched
from cornernet_runtime import Detector
from cornernet_runtime.bundle.engine_record import EngineProfile
from cornernet_runtime.bundle.manifest import ENGINE_NAME, read_manifest
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.errors import BackendError, CornerNetWarning, EngineError, PluginError, VerificationError

BODY = "corner pooling is built from standard operators"


def config_of(tensorrt):
    (config,) = tensorrt.configs
    return config


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# A good build.


def test_the_side_car_says_what_was_built(tensorrt, build, bundle):
    manifest = build()
    assert read_manifest(bundle) == manifest
    record = manifest.engine
    assert (record.tensorrt, record.gpu, record.compute_capability) == (tensorrt.version, "NVIDIA H200", "9.0")
    assert record.plugin.version == "1.2.3"
    assert record.profiles == (EngineProfile((1, 3, 63, 95), (1, 3, 63, 95), (1, 3, 63, 95)),)
    assert (record.portable, record.hardware_compatibility, record.tf32) == (False, "none", False)
    assert (record.layers, record.plugin_layers, record.reformat_layers) == (5, 2, 1)
    assert record.precisions == {"FP32": 5}
    assert names_in(bundle) == ["bundle.json", "model.engine", "model.onnx"]


def test_the_engine_was_verified_against_the_onnx_file(build):
    verification = build().verification
    checks = [check for check in verification.outputs if check.stage == STAGE]
    assert {check.source for check in checks} == {"picture", "noise"}
    assert all(0 <= check.error <= 1e-5 for check in checks)
    assert [check.stage for check in verification.detections] == ["PyTorch -> ONNX Runtime", STAGE]


def test_stages_are_told_in_order(tensorrt, bundle, plugin_library):
    told = []
    add_engine(EngineRequest(bundle, EngineOptions(plugin=plugin_library)), on_stage=told.append)
    kinds = list(dict.fromkeys(text.split(":")[0] for text in told))
    assert kinds == [
        "reading the model into TensorRT",
        "building the engine",
        "looking at the layers of the engine",
        "verifying TensorRT against ONNX Runtime",
    ]
    assert config_of(tensorrt).progress_monitor.phase == "Building Engine"
    assert threading.main_thread().ident not in tensorrt.monitor_threads


def test_each_size_has_a_profile_with_the_batches(tensorrt, build, batch_bundle_path, tmp_path):
    record = build(shutil.copytree(batch_bundle_path, tmp_path / "batches")).engine
    assert record.profiles == (
        EngineProfile((2, 3, 63, 95), (3, 3, 63, 95), (4, 3, 63, 95)),
        EngineProfile((2, 3, 95, 63), (3, 3, 95, 63), (4, 3, 95, 63)),
    )
    assert config_of(tensorrt)._profiles[1] == [[2, 3, 95, 63], [3, 3, 95, 63], [4, 3, 95, 63]]


def test_every_size_is_verified_at_the_largest_batch(build, batch_bundle_path, tmp_path):
    manifest = build(shutil.copytree(batch_bundle_path, tmp_path / "batches"))
    sources = {check.source for check in manifest.verification.outputs if check.stage == STAGE}
    assert sources == {"picture", "63x95", "95x63", "4x63x95", "4x95x63"}


def test_a_dynamic_model_has_one_profile_from_the_smallest_to_the_largest():
    from cornernet_export.engine.network import profiles_of  # noqa: PLC0415 - imports onnx

    spec = ModelSpec(
        name="x",
        class_names=("a",),
        stride=4,
        modulus=128,
        input_size=(511, 767),
        largest_size=(1023, 1151),
        dynamic=True,
        geometry="native",
        batch=(1, 2, 8),
    )
    assert profiles_of(spec) == (EngineProfile((1, 3, 127, 127), (2, 3, 511, 767), (8, 3, 1023, 1151)),)


def test_the_configuration_is_what_the_options_say(tensorrt, build):
    build(optimization_level=5, hardware_compatibility="ampere_plus", tf32=True)
    config = config_of(tensorrt)
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert {flag.name for flag in config._flags} == {"TF32"}
    assert config.profiling_verbosity.name == "DETAILED"


def test_tf32_is_off_by_default(tensorrt, build):
    build()
    assert config_of(tensorrt)._flags == set()


def test_the_workspace_stays_within_the_free_memory(tensorrt, build):
    tensorrt.gpu.free = 100 << 20
    build()
    assert config_of(tensorrt)._limits == {"WORKSPACE": 80 << 20}


def test_a_portable_engine_carries_the_plugin_and_is_marked(tensorrt, build, bundle, plugin_library):
    manifest = build(portable=True)
    config = config_of(tensorrt)
    assert {flag.name for flag in config._flags} == {"VERSION_COMPATIBLE"}
    assert config.plugins_to_serialize == [str(plugin_library)]
    assert manifest.engine.portable
    with pytest.raises(BackendError, match="allow_engine_code=True"):
        Detector.open(bundle, backend="tensorrt")


def test_building_again_replaces_the_engine_and_its_checks(build, bundle):
    first, second = build(), build(tf32=True)
    assert second.engine.tf32
    assert len(second.verification.outputs) == len(first.verification.outputs)
    assert read_manifest(bundle) == second


def test_a_damaged_engine_is_replaced(build, bundle):
    build()
    (bundle / ENGINE_NAME).write_bytes(b"damaged")
    assert build() == read_manifest(bundle)


# The plugin.


def test_without_the_plugin_the_body_is_built_with_a_warning_of_all_places(build, bundle):
    with pytest.warns(CornerNetWarning, match=BODY) as caught:
        manifest = build(plugin=None)
    (warning,) = caught
    for place in ("--plugin (not given)", "CORNERNET_PLUGIN (not set)", "/lib/libcornernet", "/build/libcornernet"):
        assert place in str(warning.message)
    assert manifest.engine.plugin is None
    assert Detector.open(bundle).backend.name == "tensorrt"


def test_a_required_plugin_that_is_missing_fails(build, bundle):
    with pytest.raises(EngineError, match=r"--require-plugin: none of 2 corner pools .* no plugin found; looked at"):
        build(plugin=None, require_plugin=True)
    assert names_in(bundle) == ["bundle.json", "model.onnx"]


def test_a_plugin_that_tensorrt_does_not_take_is_told(tensorrt, build):
    tensorrt.takes_plugins = False
    with pytest.warns(CornerNetWarning, match="does not take the plugin 1.2.3 for them; 10.7 or later does"):
        assert build().engine.plugin is None
    with pytest.raises(EngineError, match="--require-plugin: none of 2 corner pools"):
        build(require_plugin=True)


def test_a_plugin_that_is_taken_for_some_of_the_pools_only_is_an_error(tensorrt, build):
    tensorrt.takes_plugins, tensorrt.extra_plugin_layers = False, 1
    with pytest.raises(EngineError, match="takes the plugin for 1 of 2 corner pools"):
        build()


def test_a_plugin_that_is_named_and_is_no_file_is_an_error(build, tmp_path):
    with pytest.raises(PluginError, match=f"--plugin: {tmp_path}/none.so is no file"):
        build(plugin=tmp_path / "none.so")


@pytest.mark.parametrize("place", ["lib", "build"])
def test_the_plugin_of_the_installation_and_of_a_checkout_is_found(tensorrt, build, tmp_path, plugin_library, place):
    (tmp_path / place).mkdir()
    shutil.copy(plugin_library, tmp_path / place)
    assert build(plugin=None).engine.plugin.version == "1.2.3"
    (call,) = tensorrt.surface.called("IPluginRegistry", "load_library")
    assert call["plugin_path"] == str(tmp_path / place / "libcornernet_plugins.so")


# What goes wrong leaves the bundle as it was.


@pytest.fixture
def unchanged(bundle):
    """Hold after the test that the bundle is what it was, and opens."""
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    yield bundle
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert Detector.open(bundle).backend.name == "onnxruntime"


def test_errors_of_the_parser_name_node_and_reason(tensorrt, build, unchanged):
    tensorrt.parser_errors = [
        ("/pool/v_max_3", "Max", "Assertion failed: \n  types differ", ["TopLeftPool"]),
        ("", "Resize", "unsupported mode", []),
    ]
    with pytest.raises(EngineError) as caught:
        build()
    assert str(caught.value) == (
        f"{unchanged / 'model.onnx'}: TensorRT cannot read it: node /pool/v_max_3 (Max) in function TopLeftPool: "
        "Assertion failed: types differ; node 7 (Resize): unsupported mode"
    )


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (
            ["Error Code 10: Internal Error (Could not find any implementation for node conv_1.)"],
            r"no way to compute a layer in the memory that it has, 1024 MiB of NVIDIA H200 are free: close .* --size",
        ),
        (["[defaultAllocator] Requested amount of GPU memory", "Error Code 2: OutOfMemory"], "smaller --batch or --si"),
        (["Error Code 4: shapes"], "^TensorRT built no engine: Error Code 4: shapes$"),
        ([], "^TensorRT built no engine: TensorRT gives no reason$"),
    ],
    ids=["tactics", "memory", "other", "silent"],
)
def test_a_build_that_fails_tells_why(tensorrt, build, errors, message):
    tensorrt.build_errors = errors
    with pytest.raises(EngineError, match=message):
        build()


@pytest.mark.usefixtures("unchanged")
def test_a_plan_that_cannot_be_read_again_is_told(tensorrt, build):
    tensorrt.read_errors = ["magic tag"]
    with pytest.raises(BackendError, match="the new engine: TensorRT cannot read the engine: magic tag"):
        build()


@pytest.mark.usefixtures("unchanged")
def test_an_engine_that_gives_other_maps_is_not_kept(tensorrt, build):
    tensorrt.error = 0.01
    with pytest.raises(VerificationError, match="differs from ONNX Runtime by more than the tolerance"):
        build()


def test_an_engine_that_gives_other_maps_is_kept_by_force(tensorrt, build):
    tensorrt.error = 0.01
    assert not build(keep_failed=True).verification.passed


@pytest.mark.usefixtures("unchanged")
def test_an_interrupt_stops_the_build_and_keeps_what_was_measured(tensorrt, build, tmp_path):
    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        monitor = config_of(tensorrt).progress_monitor
        while not monitor.cancelled:
            time.sleep(0.01)

    tensorrt.phases = interrupt
    with pytest.raises(KeyboardInterrupt):
        build(timing_cache=tmp_path / "timings")
    assert config_of(tensorrt).progress_monitor.cancelled
    assert (tmp_path / "timings").read_bytes() == b"TIMINGS conv 1"


def test_an_interrupt_before_the_thread_runs_begins_no_build(monkeypatch):
    class Monitor:
        phase, cancelled = "", False

    def start(thread):
        threads.append(thread)
        raise KeyboardInterrupt

    threads, done, monitor = [], [], Monitor()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        run_watched(lambda: done.append(1), monitor, lambda _: None)
    threads[0].run()
    assert (done, monitor.cancelled) == ([], True)


def test_a_kill_between_any_two_writes_leaves_a_bundle_that_opens(build, bundle, monkeypatch):
    """An engine is replaced: side-car without it, plan, side-car with it."""
    from cornernet_export.engine import add as engine  # noqa: PLC0415 - imports onnx

    build()
    write, left = engine.write_manifest, [1]

    def write_some(folder, manifest):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(folder, manifest)

    monkeypatch.setattr(engine, "write_manifest", write_some)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert read_manifest(bundle).engine is None
    assert Detector.open(bundle).backend.name == "onnxruntime"


# Precision.


def test_a_half_engine_without_half_tensors_is_refused(build, bundle):
    make_half(bundle)
    with pytest.raises(EngineError, match="was to compute in fp16, but the outputs of its layers are: 5 FP32"):
        build()


def test_a_half_engine_with_half_tensors_is_taken(tensorrt, build, bundle):
    make_half(bundle)
    tensorrt.half = True
    assert build().engine.precisions == {"FP16": 4, "FP32": 1}


@pytest.mark.usefixtures("unchanged")
def test_a_float_engine_with_half_tensors_is_refused(tensorrt, build):
    tensorrt.half = True
    with pytest.raises(EngineError, match="was to compute in fp32, but the outputs of its layers are: 4 FP16, 1 FP32"):
        build()


def make_half(bundle):
    """Let a bundle say that it is in float16; its graph is not, which the doubles do not mind."""
    from cornernet_runtime.bundle.manifest import write_manifest  # noqa: PLC0415 - only here

    manifest = read_manifest(bundle)
    write_manifest(bundle, replace(manifest, spec=replace(manifest.spec, precision="fp16")))


def test_the_side_car_is_plain_json(build, bundle):
    build()
    engine = json.loads((bundle / "bundle.json").read_text())["engine"]
    assert engine["profiles"] == [{"minimum": [1, 3, 63, 95], "optimum": [1, 3, 63, 95], "maximum": [1, 3, 63, 95]}]
    assert os.stat(bundle / ENGINE_NAME).st_mode & 0o044  # noqa: PTH116 - others may read it as they may the model

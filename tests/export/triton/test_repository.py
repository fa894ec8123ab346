"""Triton model repositories: read by Triton's own definition, and held against the files that are in them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import pytest
from cases.small import SMALL_SPEC, small_model
from doubles.triton_double import class_names, read_config, type_name
from places import SHIPPED, python_path

from cornernet_export import bundle_export
from cornernet_export.bundle_export import ExportRequest, export_bundle, save_onnx
from cornernet_export.cli import main
from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_export.engine.build import EngineOptions
from cornernet_export.model.rewrite import fold_batch_norms, to_half
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.triton.config import to_text
from cornernet_export.triton.repository import TritonRequest, check_repository, write_repository
from cornernet_runtime.bundle.engine_record import EngineProfile
from cornernet_runtime.bundle.manifest import Manifest, Verification, read_manifest, write_manifest
from cornernet_runtime.errors import BundleError, CornerNetWarning, OutputError, PluginError
from cornernet_runtime.files import sha256
from cornernet_runtime.pictures import write_picture
from cornernet_train.shapes import make_scene

ONNX_TYPES = {"tensor(float)": "TYPE_FP32"}
FRONT_PORTS = {
    "frame": ("TYPE_UINT8", [-1, -1, 3]),
    "encoded": ("TYPE_STRING", [1]),
    "boxes": ("TYPE_FP32", [-1, 4]),
    "scores": ("TYPE_FP32", [-1]),
    "labels": ("TYPE_INT64", [-1]),
    "count": ("TYPE_INT32", [1]),
}


@pytest.fixture(scope="module")
def bundles(bundle_path, batch_bundle_path, made_once):
    """A bundle of each kind, by name; those that are made here are not verified, which takes the most time."""
    folder = made_once("kinds", write_kinds, keep=True)
    made = {name: folder / name for name in ("batches", "any", "half", "int8")}
    return {"fixed": bundle_path, "sizes and batches": batch_bundle_path, **made}


def write_kinds(folder):
    model = fold_batch_norms(small_model())
    native = replace(SMALL_SPEC, largest_size=(127, 191), dynamic=True, geometry="native")
    write_bundle(folder / "batches", model, replace(SMALL_SPEC, batch=(1, 4, 4)))
    write_bundle(folder / "any", model, native)
    write_bundle(folder / "half", to_half(model), replace(SMALL_SPEC, precision="fp16", other_sizes=((63, 63),)))
    for number in range(6):
        write_picture(folder / f"{number}.png", make_scene(11, number).image)
    pictures = tuple(map(str, sorted(folder.glob("*.png"))))
    with pytest.warns(CornerNetWarning, match="calibrating on 6 pictures only"):
        export_bundle(ExportRequest(SHIPPED, folder / "int8", sizes=((95, 95),), precision="int8", pictures=pictures))


def write_bundle(folder, model, spec):
    folder.mkdir()
    save_onnx(build_onnx(model, spec), folder / "model.onnx")
    files = {"model.onnx": sha256(folder / "model.onnx")}
    write_manifest(folder, Manifest("a test", spec, files, Verification()))
    return folder


def repository_of(bundle, tmp_path, **options):
    return write_repository(TritonRequest(bundle, tmp_path / "models", **options))


def configs_of(repository):
    return tuple(
        read_config(repository.folder / name / "config.pbtxt") for name in (repository.model, repository.network)
    )


def shapes_of(ports):
    """Return name, type and sides, -1 where one is free, of an ONNX file's inputs or outputs."""
    return {
        port.name: (ONNX_TYPES[port.type], [side if isinstance(side, int) else -1 for side in port.shape])
        for port in ports
    }


def configured(ports, config):
    """Return the same of a configuration, whose shapes leave out the batch where Triton counts it."""
    batch = [-1] if config.max_batch_size else []
    return {port.name: (type_name(port), batch + list(port.dims)) for port in ports}


@pytest.mark.parametrize("kind", ["fixed", "sizes and batches", "batches", "any", "half", "int8"])
def test_names_types_and_shapes_are_those_of_the_onnx_file(kind, bundles, tmp_path):
    repository = repository_of(bundles[kind], tmp_path)
    front, network = configs_of(repository)
    path = repository.folder / repository.network / "1" / "model.onnx"
    assert path.read_bytes() == (bundles[kind] / "model.onnx").read_bytes()
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert configured(network.input, network) == shapes_of(session.get_inputs())
    assert configured(network.output, network) == shapes_of(session.get_outputs())
    assert (network.name, network.backend) == (repository.network, "onnxruntime")
    assert [(group.kind, group.count) for group in network.instance_group] == [(network.instance_group[0].KIND_CPU, 1)]

    spec = read_manifest(bundles[kind]).spec
    assert {port.name: (type_name(port), list(port.dims)) for port in (*front.input, *front.output)} == FRONT_PORTS
    assert class_names(front) == spec.class_names
    assert front.parameters["network"].string_value == network.name
    assert (front.name, front.backend) == (bundles[kind].name, "python")
    side_car = repository.folder / front.name / "1" / "bundle.json"
    assert side_car.read_bytes() == (bundles[kind] / "bundle.json").read_bytes()


@pytest.mark.parametrize(
    ("kind", "of_network", "of_front"),
    [("fixed", 0, 1), ("sizes and batches", 4, 4), ("batches", 4, 4), ("any", 2, 2), ("half", 0, 1), ("int8", 0, 1)],
)
def test_batches_are_formed_where_the_model_takes_them(kind, of_network, of_front, bundles, tmp_path):
    front, network = configs_of(repository_of(bundles[kind], tmp_path))
    assert (network.max_batch_size, front.max_batch_size) == (of_network, of_front)
    assert network.HasField("dynamic_batching") == (of_network > 1)
    assert front.HasField("dynamic_batching") == (of_front > 1)
    assert front.parameters["network_batch_largest"].string_value == str(of_front)
    # On a CPU nobody waits for a batch to fill up.
    assert (
        front.dynamic_batching.max_queue_delay_microseconds,
        list(network.dynamic_batching.preferred_batch_size),
    ) == (0, [])


def test_frames_of_several_sizes_may_share_a_batch(bundle_path, tmp_path):
    front, _ = configs_of(repository_of(bundle_path, tmp_path))
    frame, encoded = front.input
    assert (frame.allow_ragged_batch, frame.optional, encoded.optional) == (True, True, True)


def test_weights_beside_the_onnx_file_go_with_it(bundle, tmp_path, monkeypatch):
    import onnx  # noqa: PLC0415 - the exporter's seconds are spared

    monkeypatch.setattr(bundle_export, "EXTERNAL_DATA_LIMIT", 0)
    save_onnx(onnx.load(bundle / "model.onnx"), bundle / "model.onnx")
    side_car = json.loads((bundle / "bundle.json").read_text())
    side_car["files"] = {name: sha256(bundle / name) for name in ("model.onnx", "model.onnx.data")}
    (bundle / "bundle.json").write_text(json.dumps(side_car))
    repository = repository_of(bundle, tmp_path)
    ort.InferenceSession(repository.folder / "bundle_network" / "1" / "model.onnx", providers=["CPUExecutionProvider"])


# An engine.


@pytest.fixture
def engine(tensorrt, batch_bundle_path, plugin_library, tmp_path):
    """Return a function that gives a bundle an engine with the plugin; options as for EngineOptions."""
    assert tensorrt.configs == []

    def build(bundle=batch_bundle_path, **options):
        folder = Path(shutil.copytree(bundle, tmp_path / "made"))
        add_engine(EngineRequest(folder, EngineOptions(plugin=plugin_library, **options)))
        return folder

    return build


def test_a_plan_is_served_with_all_its_profiles_and_its_plugin(engine, plugin_library, tmp_path):
    bundle = engine()
    repository = repository_of(bundle, tmp_path, plugin=plugin_library)
    front, network = configs_of(repository)
    assert (network.backend, network.max_batch_size) == ("tensorrt", 4)
    assert sorted(path.name for path in (repository.folder / "made_network" / "1").iterdir()) == ["model.plan"]
    plan = repository.folder / "made_network" / "1" / "model.plan"
    assert plan.read_bytes() == (bundle / "model.engine").read_bytes()
    (group,) = network.instance_group
    assert (group.kind, list(group.profile)) == (group.KIND_GPU, ["0", "1"])
    assert list(network.dynamic_batching.preferred_batch_size) == [3]
    assert front.dynamic_batching.max_queue_delay_microseconds == 2000
    assert front.parameters["network_batch_smallest"].string_value == "2"
    record = read_manifest(bundle).engine
    session = ort.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    assert configured(network.input, network) == shapes_of(session.get_inputs())
    assert configured(network.output, network) == shapes_of(session.get_outputs())
    assert max(profile.maximum[0] for profile in record.profiles) == network.max_batch_size
    library = repository.folder / "made_network" / "libcornernet_plugins.so"
    assert library.read_bytes() == plugin_library.read_bytes()
    assert repository.problem is None
    assert repository.command == (
        f"CORNERNET_REGISTER_PLUGINS=1 tritonserver --model-repository={repository.folder} "
        f"--backend-config=tensorrt,plugins={library}"
    )


def test_a_plan_of_one_shape_has_no_batch_and_no_list_of_profiles(engine, bundle_path, tmp_path):
    bundle = engine(bundle_path)
    record = read_manifest(bundle).engine
    assert record.profiles == (EngineProfile((1, 3, 63, 95), (1, 3, 63, 95), (1, 3, 63, 95)),)
    front, network = configs_of(repository_of(bundle, tmp_path))
    assert (network.max_batch_size, front.max_batch_size) == (0, 1)
    assert list(network.input[0].dims) == [1, 3, 63, 95]
    assert list(network.instance_group[0].profile) == []


def test_without_the_plugin_the_repository_says_what_it_lacks(engine, tmp_path, capfd):
    bundle = engine()
    assert main([str(bundle), "--triton", str(tmp_path / "models")]) == 0
    said = capfd.readouterr().err
    version = read_manifest(bundle).engine.tensorrt
    assert f"needs TensorRT {version} exactly and a GPU of compute capability 9.0 (NVIDIA H200)" in said
    assert "libcornernet_plugins.so is not in it: it needs version 1.2.3 of the plugin: no plugin found" in said
    assert "plugins=libcornernet_plugins.so" in said


def test_another_version_of_the_plugin_is_refused_where_it_is_named(engine, plugin_library, tmp_path):
    bundle = engine()
    other = tmp_path / "other.so"
    other.write_bytes(plugin_library.read_bytes().replace(b"1.2.3", b"1.2.4"))
    with pytest.raises(PluginError, match=r"built with version 1\.2\.3 of the plugin; .*other\.so is version 1\.2\.4"):
        repository_of(bundle, tmp_path, plugin=other)
    assert not (tmp_path / "models").exists()


def test_a_portable_plan_needs_triton_to_allow_its_code(engine, tmp_path):
    repository = repository_of(engine(portable=True), tmp_path)
    assert repository.command.endswith(" --backend-config=tensorrt,version-compatible=true")
    assert repository.plugin is None
    assert repository.problem is None  # it carries the plugin


@pytest.mark.usefixtures("tensorrt")
def test_a_bundle_gets_an_engine_and_then_a_repository_of_it(bundle, plugin_library, tmp_path):
    command = [str(bundle), "--engine", "--plugin", str(plugin_library), "--triton", str(tmp_path / "models")]
    assert main(command) == 0
    assert (tmp_path / "models" / "bundle_network" / "1" / "model.plan").is_file()
    assert (tmp_path / "models" / "bundle_network" / "libcornernet_plugins.so").is_file()


# The command, and what it refuses.


def last_line(capfd):
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_a_checkpoint_becomes_a_bundle_and_a_repository(checkpoint_path, bundle_path, tmp_path, capfd, monkeypatch):
    import onnx  # noqa: PLC0415 - the exporter's seconds are spared

    monkeypatch.setattr(bundle_export, "build_onnx", lambda *_: onnx.load(bundle_path / "model.onnx"))
    output, models = tmp_path / "made", tmp_path / "models"
    assert main([str(checkpoint_path), "--output", str(output), "--triton", str(models)]) == 0
    said = capfd.readouterr().err
    assert f"{models}: clients call made, which calls made_network; that needs ONNX Runtime on the CPU" in said
    assert f"to serve it: tritonserver --model-repository={models}" in said
    assert read_config(models / "made" / "config.pbtxt").name == "made"


def test_a_repository_needs_neither_pytorch_nor_onnx(bundle_path, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = sys.modules['tritonclient'] = None\n"
        "from cornernet_export.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(bundle_path), "--triton", str(tmp_path / "models")]
    environment = {**os.environ, "PYTHONPATH": python_path(*sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr


def test_a_repository_is_replaced_with_force_only(bundle_path, batch_bundle_path, tmp_path, capfd):
    models = tmp_path / "models"
    assert main([str(bundle_path), "--triton", str(models)]) == 0
    before = sorted(models.rglob("*"))
    assert main([str(bundle_path), "--triton", str(models)]) == 1
    assert last_line(capfd) == f"error: {models} exists: choose another folder, or add --force to replace it"
    assert sorted(models.rglob("*")) == before
    assert main([str(batch_bundle_path), "--triton", str(models), "--force"]) == 0
    assert read_config(models / "small_network" / "config.pbtxt").max_batch_size == 4


@pytest.mark.parametrize("more", [["--output", "new"], []])
def test_force_replaces_no_other_folder(bundle_path, checkpoint_path, tmp_path, capfd, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle_export, "build_onnx", lambda *_: pytest.fail("the export began"))
    models = tmp_path / "models"
    assert main([str(bundle_path), "--triton", str(models)]) == 0
    (models / "another model").mkdir()
    source = checkpoint_path if more else bundle_path
    assert main([str(source), *more, "--triton", str(models), "--force"]) == 1
    assert last_line(capfd) == (
        f"error: {models} is no Triton repository that cornernet-export wrote, so --force does not replace it"
    )
    assert (models / "another model").is_dir()


@pytest.mark.parametrize("name", ["my model", "-x", ".hidden", "größe", "x" * 101])
def test_a_name_that_triton_cannot_have_is_refused(bundle_path, tmp_path, name):
    bundle = Path(shutil.copytree(bundle_path, tmp_path / name))
    with pytest.raises(BundleError, match="its folder's name becomes the model's: expected up to 100 letters"):
        repository_of(bundle, tmp_path)
    assert not (tmp_path / "models").exists()


def test_a_bundle_of_a_later_version_is_refused(bundle, tmp_path, capfd):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    assert main([str(bundle), "--triton", str(tmp_path / "models")]) == 1
    assert "written with schema 2, this version reads up to 1" in last_line(capfd)
    assert not (tmp_path / "models").exists()


def test_a_changed_model_is_refused(bundle, tmp_path):
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="its hash is not the one"):
        repository_of(bundle, tmp_path)


def test_where_nothing_can_be_written_nothing_is_left(bundle_path, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # as a full disk
    try:
        with pytest.raises(OutputError, match=r"cannot write .*models: File too large"):
            repository_of(bundle_path, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(bundle_path, tmp_path):
    (tmp_path / "models").write_text("x")
    check_repository(TritonRequest(bundle_path, tmp_path / "models"))
    with pytest.raises(OutputError, match="is a file: choose the name of a folder"):
        repository_of(bundle_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.safetensors", "--triton", "models"], "x.safetensors does not exist"),
        (["{bundle}/model.onnx", "--triton", "models"], "name the folder: cornernet-export {bundle} --triton models"),
        (["{bundle}", "--triton", "models", "--size", "63x95"], "--size: not with a bundle"),
        (["{bundle}", "--triton", "models", "--tf32"], "--tf32: only with --engine"),
        (["x.pkl", "--output", "y", "--triton", "models", "--plugin", "x.so"], "--plugin: only with --engine"),
        (["{bundle}", "--triton", "models", "--calibration", "x"], "--calibration: with a bundle only beside --engine"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, message, bundle, capsys):
    with pytest.raises(SystemExit) as caught:
        main([argument.format(bundle=bundle) for argument in arguments])
    assert caught.value.code == 2
    assert message.format(bundle=bundle) in capsys.readouterr().err


def test_text_is_escaped_as_protobuf_reads_it(tmp_path):
    name = 'a "quoted" \\ größe\n\t\x01'
    path = tmp_path / "config.pbtxt"
    path.write_text(to_text({"name": name, "dynamic_batching": {}, "max_batch_size": 3}), encoding="utf-8")
    config = read_config(path)
    assert (config.name, config.max_batch_size, config.HasField("dynamic_batching")) == (name, 3, True)

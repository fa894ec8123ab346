"""``--precision int8`` from the command line: what it makes, what it compares, and what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from cases.small import SMALL_SPEC
from places import SHIPPED

from cornernet_export import bundle_export
from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.cli import main
from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_export.int8 import export as int8_export
from cornernet_export.int8.export import FEWEST_PICTURES, MOST_PICTURES, STAGE, calibration_pictures
from cornernet_export.verification.matching import FP32, INT8
from cornernet_export.verification.verify import verify
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetWarning, EngineError, FrameError
from cornernet_runtime.pictures import find_pictures, read_picture, write_picture
from cornernet_train.shapes import make_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(6):
        write_picture(folder / f"{number}.png", make_scene(11, number).image)
    return folder


@pytest.fixture(scope="module")
def bundle8(scenes, tmp_path_factory):
    """The shipped model in INT8; detections of random weights are all near-ties."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    export_bundle(ExportRequest(SHIPPED, output, precision="int8", pictures=(str(scenes),)))
    return output


@pytest.fixture
def no_export(monkeypatch):
    """Fail where a command goes as far as exporting."""
    monkeypatch.setattr(bundle_export, "build_onnx", lambda *_: pytest.fail("the export began"))


def int8(checkpoint, output, pictures, *more):
    flags = ["--output", str(output), "--precision", "int8", "--calibration", str(pictures)]
    return main([str(checkpoint), *flags, *more])


# What comes out.


@pytest.mark.slow
def test_the_bundle_says_what_it_is_and_opens(bundle8):
    manifest = read_manifest(bundle8)
    assert (manifest.spec.precision, manifest.spec.int8_target) == ("int8", "cpu")
    assert sorted(path.name for path in bundle8.iterdir()) == ["bundle.json", "model.onnx"]
    for model in (bundle8, bundle8 / "model.onnx"):
        with Detector.open(model) as detector:
            assert detector.spec == manifest.spec
            assert len(detector(make_scene(11, 0).image).above(0.5)) > 0


@pytest.mark.slow
def test_both_steps_are_verified_the_second_on_pictures_only(bundle8):
    verification = read_manifest(bundle8).verification
    assert verification.passed
    sources = {(check.stage, check.source) for check in verification.outputs}
    assert sources == {
        ("PyTorch -> ONNX Runtime", "6 pictures"),
        ("PyTorch -> ONNX Runtime", "noise"),
        (STAGE, "6 pictures"),
    }
    errors = [check.error for check in verification.outputs if check.stage == STAGE]
    assert all(0.001 < error < 0.3 for error in errors)
    assert [check.stage for check in verification.detections] == ["PyTorch -> ONNX Runtime", STAGE]


@pytest.mark.slow
def test_sizes_and_batches_are_tried_with_stretched_pictures(checkpoint_path, scenes, tmp_path):
    more = ["--size", "63x95", "--size", "95x63", "--batch", "2", "--force"]  # detections of random weights may be off
    assert int8(checkpoint_path, tmp_path / "two", scenes, *more) == 0
    manifest = read_manifest(tmp_path / "two")
    checks = [check for check in manifest.verification.outputs if check.stage == STAGE]
    assert {check.source for check in checks} == {"6 pictures", "63x95", "95x63", "2x63x95", "2x95x63"}
    assert all(check.error < 0.3 for check in checks)


@pytest.mark.slow
def test_a_dynamic_model_is_quantised_at_the_sizes_of_its_pictures(scenes, tmp_path):
    assert int8(SHIPPED, tmp_path / "free", scenes, "--dynamic", "--size", "255x255", "--target", "tensorrt") == 0
    manifest = read_manifest(tmp_path / "free")
    assert (manifest.spec.int8_target, manifest.spec.geometry) == ("tensorrt", "native")
    sources = {check.source for check in manifest.verification.outputs if check.stage == STAGE}
    assert sources == {"6 pictures", "2x31x63", "255x255"}


@pytest.mark.slow
def test_the_table_of_the_second_step_is_printed(checkpoint_path, scenes, tmp_path, capfd):
    int8(checkpoint_path, tmp_path / "printed", scenes, "--force")
    said = capfd.readouterr().err
    assert f"{STAGE}: largest error of each output" in said
    assert "small, 3 classes, 63x95, int8," in said


# Calibration that is wrong.


@pytest.fixture(scope="module")
def exact(scenes, shipped_path):
    """The shipped model in float32, with its graph and the ranges that INT8 needs."""
    model = onnx.load(shipped_path / "model.onnx")
    with Detector.open(shipped_path) as detector:
        paths = find_pictures([str(scenes)])
        yield detector, model, int8_export.calibrate(model, "cpu", detector, paths, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "passes"), [(1, True), (0.5, False), (0.7, False), (6, False)])
def test_ranges_of_other_pictures_are_noticed(factor, passes, exact, scenes, tmp_path):
    detector, model, ranges = exact
    ranges = {name: (factor * low, factor * high) for name, (low, high) in ranges.items()}
    onnx.save(int8_export.to_int8(model, ranges, detector, "cpu"), tmp_path / "model.onnx")
    with Detector.open(tmp_path / "model.onnx") as candidate:
        frames = [read_picture(path) for path in find_pictures([str(scenes)])]
        assert verify(detector, candidate, STAGE, INT8, frames, noise=False).passed == passes


@pytest.mark.slow
def test_a_model_that_is_off_is_not_written(checkpoint_path, scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(int8_export, "collect_ranges", lambda _model, names, _images: dict.fromkeys(names, (0.0, 1e-3)))
    assert int8(checkpoint_path, tmp_path / "wrong", scenes) == 1
    said = capfd.readouterr().err
    assert "FAILED" in said
    assert "more than the tolerance; nothing was written; calibrate on more pictures" in said
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_force_keeps_it_and_says_so(checkpoint_path, scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(int8_export, "collect_ranges", lambda _model, names, _images: dict.fromkeys(names, (0.0, 1e-3)))
    assert int8(checkpoint_path, tmp_path / "wrong", scenes, "--force") == 0
    assert "kept because of --force" in capfd.readouterr().err
    assert not read_manifest(tmp_path / "wrong").verification.passed


@pytest.mark.slow
def test_force_does_not_keep_int8_made_of_a_float32_export_that_is_off(
    checkpoint_path, scenes, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(bundle_export, "FP32", replace(FP32, output=1e-9))
    assert int8(checkpoint_path, tmp_path / "off", scenes, "--force") == 1
    said = capfd.readouterr().err
    assert "more than the tolerance" in said
    assert STAGE not in said
    assert not (tmp_path / "off").exists()


# Pictures.


@pytest.mark.usefixtures("no_export")
def test_without_pictures_it_is_wrong_usage(checkpoint_path, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_of:
        main([str(checkpoint_path), "--output", str(tmp_path / "out"), "--precision", "int8"])
    assert exit_of.value.code == 2
    assert "--precision int8 needs --calibration DIR" in capsys.readouterr().err
    with pytest.raises(FrameError, match="--calibration DIR"):
        export_bundle(ExportRequest(checkpoint_path, tmp_path / "out", precision="int8"))


@pytest.mark.usefixtures("no_export")
def test_a_picture_that_cannot_be_read_is_named_before_any_work(checkpoint_path, scenes, tmp_path, capsys):
    folder = Path(shutil.copytree(scenes, tmp_path / "pictures"))
    (folder / "3.png").write_bytes(b"no picture")
    assert int8(checkpoint_path, tmp_path / "out", folder) == 1
    assert f"{folder / '3.png'}: cannot be decoded as a picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_export")
def test_an_empty_folder_is_refused(checkpoint_path, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert int8(checkpoint_path, tmp_path / "out", tmp_path / "empty") == 1
    assert "no picture in this folder" in capsys.readouterr().err


def test_few_pictures_are_warned_of(scenes):
    with pytest.warns(CornerNetWarning, match=f"calibrating on 6 pictures only; with fewer than {FEWEST_PICTURES}"):
        assert len(calibration_pictures([str(scenes)])) == 6


@pytest.mark.parametrize(("count", "taken"), [(32, 32), (256, 256), (257, 129), (600, 200)])
def test_up_to_256_pictures_are_taken_from_all_over(scenes, tmp_path, count, taken, recwarn):
    for number in range(count):
        (tmp_path / f"{number:03}.png").hardlink_to(scenes / "0.png")
    paths = calibration_pictures([str(tmp_path)])
    assert len(paths) == taken <= MOST_PICTURES
    assert int(paths[-1].stem) >= count - 3
    assert len(recwarn) == 0


# Targets.


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target", "tensorrt"], "--target: only with --precision int8"),
        (
            ["--precision", "int8", "--calibration", "x", "--engine"],
            "--engine with --precision int8 needs --target tensorrt",
        ),
    ],
)
def test_a_target_that_does_not_fit_is_wrong_usage(flags, said, checkpoint_path, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_of:
        main([str(checkpoint_path), "--output", str(tmp_path / "out"), *flags])
    assert exit_of.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_bundle_for_a_cpu_gets_no_engine(bundle8):
    with pytest.raises(EngineError, match="--target tensorrt"):
        add_engine(EngineRequest(bundle8))


def test_a_float32_bundle_names_no_target(bundle_path):
    assert read_manifest(bundle_path).spec.int8_target is None
    assert SMALL_SPEC.int8_target is None


@pytest.mark.slow
def test_weights_take_a_quarter_of_the_space(bundle8):
    weights = onnx.load(bundle8 / "model.onnx").graph.initializer
    assert sum(len(item.raw_data) for item in weights) < 1.8e6  # 1.56 million parameters

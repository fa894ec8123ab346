"""The Python model of a Triton repository, run from its ``model.py``: the boxes are those of the Detector."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from doubles.triton_double import FrontModel, Request, TritonError, load_model
from places import SHIPPED

from cornernet_export.triton.repository import TritonRequest, write_repository
from cornernet_runtime import Detector
from cornernet_runtime.errors import ModelError

RANDOM = np.random.default_rng(0)
FRAMES = [RANDOM.integers(0, 256, (*size, 3), np.uint8) for size in ((63, 95), (40, 70), (126, 190), (95, 40), (1, 1))]


@pytest.fixture(scope="module")
def dynamic_bundle_path(export_once):
    return export_once(SHIPPED, "any", sizes=((159, 191),), dynamic=True, batch=(1, 2, 4))


@pytest.fixture
def front(tmp_path, monkeypatch):
    """Return a function that makes a bundle's repository, with other parameters, and loads its model."""
    opened = []

    def load(bundle, **parameters):
        repository = tmp_path / "models"
        write_repository(TritonRequest(bundle, repository, force=True))
        change_parameters(repository / bundle.name / "config.pbtxt", parameters)
        opened.append(FrontModel(repository, monkeypatch))
        return opened[-1]

    yield load
    for model in opened:
        model.close()


def change_parameters(config, values):
    text = config.read_text()
    for name, value in values.items():
        text, count = re.subn(rf'(key: "{name}"\s+value {{\s+string_value: )"[^"]*"', rf'\1"{value}"', text)
        assert count == 1
    config.write_text(text)


def frames_of(*pictures):
    return Request(frame=np.stack(pictures))


def files_of(*contents):
    return Request(encoded=np.array([[content] for content in contents], object))


def assert_same(outputs, row, detections):
    """Assert that a row of a response is what the Detector found, to the last bit, and that nothing follows."""
    count = outputs["count"][row, 0]
    assert count == len(detections)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(outputs[name][row, :count], getattr(detections, name))
        assert not outputs[name][row, count:].any()


@pytest.mark.parametrize("which", ["bundle_path", "batch_bundle_path", "dynamic_bundle_path"])
def test_boxes_are_those_of_the_detector(which, front, request):
    bundle = request.getfixturevalue(which)
    model = front(bundle)
    with Detector.open(bundle) as detector:
        for frame in FRAMES:
            (outputs,) = model(frames_of(frame))
            assert outputs["boxes"].shape[0] == 1
            assert_same(outputs, 0, detector(frame))
        assert len(detector(FRAMES[0])) > 10  # so that something was compared


def test_a_file_of_a_picture_gives_the_boxes_of_its_pixels(bundle_path, front):
    model = front(bundle_path)
    done, png = cv2.imencode(".png", FRAMES[1])
    assert done
    encoded, plain = model(files_of(png.tobytes()), frames_of(FRAMES[1]))
    for name, array in plain.items():
        np.testing.assert_array_equal(encoded[name], array)


def test_requests_of_several_sizes_share_runs_of_the_network(batch_bundle_path, front):
    model = front(batch_bundle_path)
    wide, tall = (63, 95, 3), (95, 63, 3)
    frames = [RANDOM.integers(0, 256, shape, np.uint8) for shape in (wide, tall, wide, (126, 190, 3), tall, wide, wide)]
    found = model(*map(frames_of, frames))
    assert [shape for _, shape in model.triton.calls] == [(4, 3, 63, 95), (1, 3, 63, 95), (2, 3, 95, 63)]
    with Detector.open(batch_bundle_path) as detector:
        for outputs, detections in zip(found, detector.batch(frames), strict=True):
            assert_same(outputs, 0, detections)


def test_pictures_of_one_request_have_rows_of_their_own(dynamic_bundle_path, front):
    model = front(dynamic_bundle_path)
    bundle = json.loads((dynamic_bundle_path / "bundle.json").read_text())
    frames = [np.zeros((60, 60, 3), np.uint8), *(RANDOM.integers(0, 256, (60, 60, 3), np.uint8) for _ in range(2))]
    (outputs,) = model(frames_of(*frames))
    assert bundle["spec"]["batch"] == [1, 2, 4]
    with Detector.open(dynamic_bundle_path) as detector:
        found = detector.batch(frames)
    assert len({len(detections) for detections in found}) > 1  # the shorter ones are filled up
    for row, detections in enumerate(found):
        assert_same(outputs, row, detections)


def test_a_picture_without_objects_has_no_boxes(bundle, front):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"score_floor": 0.001', '"score_floor": 0.9999'))
    (outputs,) = front(bundle)(frames_of(FRAMES[0]))
    assert (outputs["boxes"].shape, outputs["scores"].shape, outputs["labels"].shape) == ((1, 0, 4), (1, 0), (1, 0))
    assert outputs["count"].tolist() == [[0]]


def test_fewer_pictures_than_an_engine_takes_are_filled_up(dynamic_bundle_path, front):
    model = front(dynamic_bundle_path, network_batch_smallest=3)
    (outputs,) = model(frames_of(FRAMES[0]))
    assert [shape[0] for _, shape in model.triton.calls] == [3]
    with Detector.open(dynamic_bundle_path) as detector:
        expected = detector(FRAMES[0])
    assert outputs["count"][0, 0] == len(expected)
    # ONNX Runtime sums in another order for another batch.
    np.testing.assert_allclose(outputs["scores"][0], expected.scores, atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"][0], expected.boxes, atol=1e-2)


def test_flip_and_scales_of_the_configuration_are_those_of_the_detector(dynamic_bundle_path, front):
    model = front(dynamic_bundle_path, flip="true", scales="0.5,1")
    with Detector.open(dynamic_bundle_path, flip=True, scales=(0.5, 1)) as detector:
        (outputs,) = model(frames_of(FRAMES[1]))
        assert_same(outputs, 0, detector(FRAMES[1]))


def test_a_bad_picture_is_an_error_of_its_request_only(batch_bundle_path, front):
    model = front(batch_bundle_path)
    done, png = cv2.imencode(".png", FRAMES[0])
    assert done
    good, text, empty, none, part = model(
        files_of(png.tobytes()),
        files_of(b"no picture"),
        files_of(b""),
        frames_of(np.zeros((0, 9, 3), np.uint8)),
        files_of(png.tobytes(), b"no picture"),
    )
    with Detector.open(batch_bundle_path) as detector:
        assert_same(good, 0, detector(FRAMES[0]))
    assert {error.code() for error in (text, empty, none, part)} == {TritonError.INVALID_ARG}
    assert text.message() == empty.message() == "picture 0: cannot be decoded as a picture"
    assert none.message() == "a frame is uint8 [H, W, 3] in BGR order, got uint8 [0, 9, 3]"
    assert part.message() == "picture 1: cannot be decoded as a picture"


def test_a_request_needs_one_of_both_inputs(bundle_path, front):
    model = front(bundle_path)
    both, neither = model(Request(frame=FRAMES[0][None], encoded=np.array([[b"x"]], object)), Request())
    assert both.message() == "expected one of the inputs frame and encoded, got both"
    assert neither.message() == "expected one of the inputs frame and encoded, got none"


def test_a_network_that_fails_is_an_error_of_the_requests_that_need_it(bundle_path, front):
    model = front(bundle_path)
    (model.triton.repository / f"{bundle_path.name}_network" / "1" / "model.onnx").unlink()
    good, bad = model(frames_of(FRAMES[0]), files_of(b""))
    assert (good.code(), bad.code()) == (TritonError.INTERNAL, TritonError.INVALID_ARG)
    assert good.message().startswith("the model small_network failed: ")


def test_another_network_than_the_side_car_says_is_found_out(bundle, front):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"cat"', '"cat", "dog"'))
    model = front(bundle)
    config = model.triton.repository / "bundle_network" / "config.pbtxt"
    (error,) = model(frames_of(FRAMES[0]))
    assert "[1, 4, 16, 24]" in config.read_text()
    assert error.message() == (
        "the model bundle_network is another network than bundle.json says: tl_heat is [1, 3, 16, 24], expected "
        "[1, 4, 16, 24]; write the repository again"
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("flip", "yes", "parameter flip: expected true or false, got 'yes'"),
        ("scales", "1,large", "parameter scales: expected numbers such as 0.5,1,1.5, got '1,large'"),
        ("network_batch_largest", "0", "parameter network_batch_largest: expected a number of 1 or more, got '0'"),
    ],
)
def test_a_parameter_that_does_not_hold_keeps_the_model_from_loading(bundle_path, front, name, value, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        front(bundle_path, **{name: value})


def test_a_side_car_of_a_later_version_keeps_the_model_from_loading(bundle_path, front, monkeypatch):
    repository = front(bundle_path).triton.repository
    path = repository / "small" / "1" / "bundle.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ModelError, match="written with schema 2, this version reads up to 1"):
        FrontModel(repository, monkeypatch)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        FrontModel(repository, monkeypatch)


def test_a_python_without_the_runtime_is_told_what_to_install(bundle_path, front, monkeypatch):
    repository = front(bundle_path).triton.repository
    monkeypatch.setitem(sys.modules, "cornernet_runtime.triton", None)
    with pytest.raises(ImportError, match=r"cornernet_runtime is not installed in the Python 3\.\d+\.\d+ that Triton"):
        load_model(repository / "small" / "1" / "model.py")


def test_a_file_that_announces_too_many_pixels_is_not_decoded(bundle_path, front):
    path = front(bundle_path).triton.repository / "small" / "1" / "model.py"
    # In a process of its own, as in Triton: OpenCV reads the limit once.
    code = (
        f"import runpy; runpy.run_path({str(path)!r})\n"
        "from cornernet_runtime.errors import FrameError\n"
        "from cornernet_runtime.pictures import decode_picture\n"
        "limit = 'CV_IO_MAX_IMAGE_PIXELS'\n"
        "for side, expected in ((40_000, limit), (10_001, limit), (100, None)):\n"
        "    try:\n"
        "        shape = decode_picture(open(f'{side}.png', 'rb').read(), 'x').shape\n"
        "        assert expected is None and shape == (side, side, 3), shape\n"
        "    except FrameError as error:\n"
        "        assert expected is not None and expected in str(error), error\n"
    )
    folder = path.parent
    for side in (40_000, 10_001):
        (folder / f"{side}.png").write_bytes(announcing(side))
    cv2.imwrite(str(folder / "100.png"), np.zeros((100, 100, 3), np.uint8))
    done = subprocess.run(  # noqa: S603 - the code is this file's own
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def announcing(side):
    """Return a PNG file of some bytes whose header says so many pixels."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

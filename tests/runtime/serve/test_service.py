"""A real service: what it answers, beside the detector in this process; what it refuses; how it goes on."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from servers.browser import chromium
from servers.served import TOKEN, running

from cornernet_bench.serve.client import Target, run_load
from cornernet_runtime import Detector
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.json_lines import json_objects

if importlib.util.find_spec("ray") is None:
    pytest.skip('Ray is not installed: pip install "cornernet-trt[cluster]"', allow_module_level=True)

SCORE = 0.05  # random weights are sure of nothing
MOST_BYTES, MOST_PIXELS, UPLOAD_S = 3_000_000, 1_000_000, 2
pytestmark = pytest.mark.ray
needs_chromium = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
def frames():
    noise = np.random.default_rng(1)
    sizes = [(63, 95), (40, 40), (120, 80), (96, 160), (200, 300), (64, 64)]
    return [cv2.GaussianBlur(noise.integers(0, 256, (*size, 3), np.uint8), (0, 0), 2) for size in sizes]


@pytest.fixture(scope="module")
def pictures(frames):
    """The frames as PNG, which loses nothing."""
    return [cv2.imencode(".png", frame)[1].tobytes() for frame in frames]


@pytest.fixture(scope="module")
def expected(bundle_path, frames):
    """What the detector in this process finds."""
    with Detector.open(bundle_path) as detector:
        return [detector(frame) for frame in frames]


@pytest.fixture(scope="module")
def service(bundle_path, tmp_path_factory):
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    limits = ["--max-bytes", str(MOST_BYTES), "--max-pixels", str(MOST_PIXELS), "--upload-timeout", str(UPLOAD_S)]
    # A replica that was killed is replaced by another within seconds, or a minute on a busy machine.
    with running(bundle_path, "--token-file", str(token), "--batch", "4", "--timeout", "120", *limits) as service:
        yield service


def objects(body):
    return json.loads(body)["detections"]


def test_the_answer_is_that_of_the_detector(service, frames, pictures, expected):
    assert sum(len(found.above(SCORE)) for found in expected) > 10  # there is something to compare
    for frame, picture, found in zip(frames, pictures, expected, strict=True):
        status, headers, body = service.ask(picture, f"/detect?score={SCORE}")
        assert (status, headers["content-type"]) == (200, "application/json")
        height, width = frame.shape[:2]
        said = {"model": "small", "width": width, "height": height, "detections": json_objects(found.above(SCORE))}
        assert json.loads(body) == said


def test_the_least_score_is_030_unless_said_otherwise(service, pictures, expected):
    assert objects(service.ask(pictures[0])[2]) == json_objects(expected[0].above(0.3))
    assert objects(service.ask(pictures[0], "/detect?score=0")[2]) == json_objects(expected[0])


def test_the_annotated_picture_is_what_the_detector_would_draw(service, frames, pictures, expected):
    status, headers, body = service.ask(pictures[4], f"/detect/picture?score={SCORE}")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    wanted = draw_detections(frames[4], expected[4].above(SCORE))
    assert body == cv2.imencode(".jpg", wanted, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def test_many_at_once_are_answered_in_batches_and_each_with_its_own(service, pictures, expected):
    before = service.metrics()
    load = asyncio.run(
        run_load(Target.of(service.url, TOKEN), pictures, 120, 16, 60, lambda _: None, f"/detect?score={SCORE}")
    )
    assert (load.statuses, load.failures) == (Counter({200: 120}), Counter())
    for number, body in load.bodies:
        assert objects(body) == json_objects(expected[number].above(SCORE))
    after = service.metrics()
    batches, in_them = (
        after[name] - before[name] for name in ("cornernet_batch_size_count", "cornernet_batch_size_sum")
    )
    assert in_them == 120
    assert in_them / batches > 2


def test_requests_are_counted_by_address_and_status(service, pictures):
    before = service.metrics()
    service.ask(pictures[0])
    service.ask(b"no picture")
    service.ask(pictures[0], "/nowhere/at/all")
    after = service.metrics()
    grown = {
        name for name in after if name.startswith("cornernet_requests_total") and after[name] != before.get(name, 0)
    }
    names = [("/detect", 200), ("/detect", 415), ("other", 404), ("/metrics", 200)]
    assert grown == {f'cornernet_requests_total{{path="{path}",status="{status}"}}' for path, status in names}


def test_it_says_that_it_lives_and_is_ready(service):
    assert json.loads(service.ask(path="/health", method="GET", token=None)[2])["status"] == "alive"
    status, _, body = service.ask(path="/ready", method="GET", token=None)
    assert (status, json.loads(body)) == (200, {"status": "ready", "model": "small", "replicas": 1})


def png_header(width, height):
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(data)) + b"IHDR" + data
    return start + struct.pack(">I", zlib.crc32(b"IHDR" + data)) + bytes(64)


def jpeg():
    noise = np.random.default_rng(2).integers(0, 256, (100, 100, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


def png(width, height):
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def jpeg_of_scans(count):
    """Return a progressive JPEG with the last of its scans repeated."""
    noise = np.random.default_rng(2).integers(0, 256, (100, 100, 3), np.uint8)
    content = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * count + content[-2:]


BAD_BODIES = {
    "empty": (lambda: b"", 400, "empty"),
    "text": (lambda: b"hello", 415, "JPEG, PNG, WebP or BMP"),
    "a form": (lambda: b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + jpeg(), 415, "no form"),
    "a GIF": (lambda: b"GIF89a" + bytes(100), 415, "JPEG, PNG, WebP or BMP"),
    "a JPEG that is cut off": (lambda: jpeg()[:5000], 422, "cannot be decoded"),
    "a JPEG of ten bytes": (lambda: jpeg()[:10], 422, "header"),
    "a PNG of noise": (lambda: png_header(50, 50), 422, "cannot be decoded"),
    "a header of 40,000x40,000": (lambda: png_header(40_000, 40_000), 413, "40000x40000 pixels, more than 1000000"),
    "a JPEG of scans without end": (lambda: jpeg_of_scans(200), 422, "more than 100 scans"),
    "one too wide to be drawn": (lambda: png(70_000, 10), 422, "70000x10 pixels cannot be drawn on", "/detect/picture"),
    "50 MB": (lambda: b"\xff\xd8\xff" + bytes(50_000_000), 413, "exceeds 3000000 bytes"),
    "50 MB in chunks": (lambda: iter([bytes(1_000_000)] * 50), 413, "exceeds 3000000 bytes"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_bad_body_is_refused_with_a_message_and_the_service_goes_on(service, pictures, expected, kind):
    body, wanted, words, *path = BAD_BODIES[kind]
    status, headers, content = service.ask(body(), *path)
    assert (status, headers["content-type"]) == (wanted, "application/json")
    assert words in json.loads(content)["detail"]
    assert b"Traceback" not in content
    assert objects(service.ask(pictures[0], f"/detect?score={SCORE}")[2]) == json_objects(expected[0].above(SCORE))


@pytest.mark.parametrize(
    ("path", "method", "status", "words"),
    [
        ("/detect?score=2", "POST", 422, "query.score"),
        ("/detect?score=nan", "POST", 422, "query.score"),
        ("/detect?score=", "POST", 422, "query.score"),
        ("/detect", "GET", 405, "GET /detect"),
        ("/detect", "DELETE", 405, "DELETE /detect"),
        ("/detekt", "POST", 404, "POST /detekt"),
    ],
)
def test_a_bad_request_is_refused_with_a_message(service, pictures, path, method, status, words):
    got, _, body = service.ask(pictures[0], path, method)
    assert got == status
    assert words in json.loads(body)["detail"]


@pytest.mark.parametrize("path", ["/detect", "/detect/picture", "/metrics"])
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "\xe9"])
def test_without_the_token_nothing_is_given(service, pictures, path, token):
    method = "GET" if path == "/metrics" else "POST"
    status, headers, body = service.ask(pictures[0], path, method, token=token)
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="cornernet-serve"')
    assert "Authorization: Bearer" in json.loads(body)["detail"]


def test_the_token_of_another_scheme_is_none(service, pictures):
    headers = {"Authorization": f"Basic {TOKEN}"}
    assert service.ask(pictures[0], headers=headers, token=None)[0] == 401


def mutants():
    """Return real pictures with bytes changed, moved or missing, the same each time."""
    noise = np.random.default_rng(3)
    frame = cv2.GaussianBlur(noise.integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 2)
    kinds = [(".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".png", []), (".webp", []), (".bmp", [])]
    for kind, options in kinds:
        whole = cv2.imencode(kind, frame, options)[1].tobytes()
        for count in (1, 3, 10, 30):
            changed = bytearray(whole)
            for at in noise.integers(0, len(whole), count):
                changed[at] = noise.integers(256)
            yield bytes(changed)
        for start, end in np.sort(noise.integers(20, len(whole), (4, 2))):
            yield whole[:start] + whole[end:]
            yield whole[:end] + whole[start:]


@pytest.mark.parametrize("path", ["/detect", "/detect/picture"])
def test_damaged_pictures_are_never_a_fault_of_the_service(service, pictures, expected, path):
    statuses = Counter(service.ask(content, path)[0] for content in mutants())
    assert set(statuses) <= {200, 413, 415, 422}
    assert min(statuses[200], statuses[422]) > 5  # they reach the decoder
    assert objects(service.ask(pictures[0], f"/detect?score={SCORE}")[2]) == json_objects(expected[0].above(SCORE))


def test_opencv_in_the_replicas_has_the_limit_of_pixels_too(service):
    [replica] = service.replicas()
    variables = Path(f"/proc/{replica}/environ").read_bytes().split(b"\0")
    assert f"OPENCV_IO_MAX_IMAGE_PIXELS={MOST_PIXELS}".encode() in variables


def head(length, extra=""):
    return (
        f"POST /detect HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n{extra}\r\n"
    )


def test_a_slow_upload_is_ended_and_holds_up_nobody(service, pictures):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as slow:
        slow.sendall(head(5000).encode() + b"x")
        assert service.ask(pictures[0])[0] == 200  # meanwhile
        said = b"".join(iter(lambda: slow.recv(4096), b""))  # until it is closed
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 2 seconds" in said


def test_a_connection_that_says_nothing_is_closed(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as silent:
        silent.sendall(b"POST /det")
        assert silent.recv(100) == b""


def test_a_client_that_asks_before_it_sends_too_much_need_not_send(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as careful:
        careful.sendall(head(50_000_000, "Expect: 100-continue\r\n").encode())
        assert careful.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_within_its_body_does_no_harm(service, pictures):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as leaving:
            leaving.sendall(head(5000).encode() + b"x")
    assert service.ask(pictures[0])[0] == 200
    assert not any("Traceback" in line for line in service.said)


def test_what_is_no_http_is_refused(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as strange:
        strange.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert strange.recv(100).startswith(b"HTTP/1.1 400 ")


def test_schemathesis_finds_nothing_that_the_document_does_not_say(service, pictures):
    script = Path(sys.executable).with_name("schemathesis")
    if not script.exists():
        pytest.skip("schemathesis is not installed: pip install schemathesis")
    # Any bytes fit the document's schema of a picture, so that check would have them all accepted.
    checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    command = [script, "run", f"{service.url}/openapi.json", "--max-examples", "20", "--seed", "1", *checks]
    run = subprocess.run(  # noqa: S603 - a fixed command
        [*command, "-H", f"Authorization: Bearer {TOKEN}", "--no-color"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout
    assert "Tested: 6" in run.stdout
    assert service.ask(pictures[0])[0] == 200


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_dropped_on_the_page_shows_its_boxes(service, pictures, expected, width, tmp_path):
    from servers.cdp import open_page  # noqa: PLC0415 - needs websockets, of the examples

    found = expected[4].above(SCORE)
    with open_page(service.url + "/", tmp_path) as page:
        page.resize(width)
        page.wait_for("document.getElementById('title').textContent === 'small'")
        assert page.console == []
        page.drop(pictures[4], "a.png", "image/png")
        page.wait_for("!document.getElementById('token-row').hidden")  # it was not let in
        assert "asks for its token" in page.run("document.getElementById('problem').textContent")
        page.run(f"document.getElementById('token').value = '{TOKEN}'; document.querySelector('form').requestSubmit()")
        page.wait_for("!document.getElementById('result').hidden")
        page.run("document.getElementById('score').value = 0.05; draw()")
        boxes = page.run(
            "[...document.querySelectorAll('.box')].map(one => "
            "['x', 'y', 'width', 'height'].map(name => Number(one.getAttribute(name))))"
        )
        wanted = found.boxes[::-1].astype(float)  # the best lies on top
        assert np.allclose(boxes, np.hstack([wanted[:, :2], wanted[:, 2:] - wanted[:, :2]]), atol=2e-3)
        assert page.run("document.querySelectorAll('#rows tr').length") == len(found)
        assert page.run("document.documentElement.scrollWidth") <= width
        page.run("document.getElementById('score').value = 1; draw()")
        assert page.run("document.querySelectorAll('.box').length") == 0
        page.drop(b"hello", "a.txt", "text/plain")
        page.wait_for("!document.getElementById('problem').hidden")
        assert "JPEG, PNG, WebP or BMP" in page.run("document.getElementById('problem').textContent")
        assert [line for line in page.console if "Failed to load resource" not in line] == []  # 401 and 415
        assert all(url.startswith((service.url, "blob:", "data:")) for url in page.asked)


def test_a_replica_that_is_killed_loses_no_request(service, pictures, expected):
    before = service.metrics()["cornernet_retries_total"]
    for _ in range(5):  # it may have answered all that it was asked, and this process not have read it yet
        kill_during_a_load(service, pictures, expected)
        if service.metrics()["cornernet_retries_total"] > before:
            return
    pytest.fail("it never died with a request")


def kill_during_a_load(service, pictures, expected):
    [replica] = service.replicas()

    def kill(answered):
        if answered == 50:
            os.kill(replica, signal.SIGSTOP)  # so that it dies with requests, however slow the load is
            asyncio.get_running_loop().call_later(0.5, os.kill, replica, signal.SIGKILL)

    load = asyncio.run(run_load(Target.of(service.url, TOKEN), pictures, 200, 16, 150, kill, f"/detect?score={SCORE}"))
    assert (load.statuses, load.failures) == (Counter({200: 200}), Counter())
    for number, body in load.bodies:
        assert objects(body) == json_objects(expected[number].above(SCORE))
    assert replica not in service.replicas()


def test_replicas_without_their_model_are_not_ready_until_it_is_back(service, bundle_path, pictures):
    def is_ready():
        return service.ask(path="/ready", method="GET")[0] == 200

    end = time.monotonic() + 120
    known = set(service.replicas())
    model = bundle_path / "model.onnx"
    away = model.rename(model.with_suffix(".away"))
    try:
        for replica in known:
            os.kill(replica, signal.SIGKILL)
        seen, was_ready = set(), []
        while len(seen) < 2:  # two failed one after the other
            assert time.monotonic() < end
            seen |= set(service.replicas()) - known
            if seen:
                was_ready.append(is_ready())
            time.sleep(0.1)
        assert not any(was_ready)
    finally:
        away.rename(model)
    while not is_ready():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert service.ask(pictures[0])[0] == 200

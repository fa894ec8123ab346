"""``cornernet-bench serve``: what it says of a service, told by a small one whose answers are known."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from cases.report_schema import problems

from cornernet_bench.cli import main
from cornernet_bench.serve.client import Target
from cornernet_runtime import Detector
from cornernet_runtime.errors import ServeError
from cornernet_runtime.json_lines import json_objects

SCORE = 0.05  # random weights are sure of nothing


class Known(BaseHTTPRequestHandler):
    """Answers with what the test says, and every seventh picture with a status of the test's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        if self.path == "/ready":
            self.reply(server.ready, b"{}")
            return
        number = server.count
        lines = {"cornernet_batch_size_count": number / 4, "cornernet_batch_size_sum": number}
        lines |= {"cornernet_decode_seconds_sum": 0.002 * number, "cornernet_detect_seconds_sum": 0.01 * number}
        lines |= {"process_cpu_seconds_total": 0.003 * number, "cornernet_retries_total": number // 50}
        self.reply(200, "".join(f"{name} {value}\n" for name, value in lines.items()).encode())

    def do_POST(self):
        picture = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.count += 1
            number = self.server.count
        self.reply(self.server.seventh if number % 7 == 0 else 200, self.server.answers[picture])

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def pictures(tmp_path):
    noise = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        blurred = cv2.GaussianBlur(noise.integers(0, 256, (63, 95, 3), np.uint8), (0, 0), 2)
        cv2.imwrite(str(folder / f"{number}.png"), blurred)
    return folder


@pytest.fixture
def service(pictures, bundle_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Known)
    server.lock, server.count, server.ready, server.seventh = threading.Lock(), 0, 200, 200
    server.answers = {}
    with Detector.open(bundle_path) as detector:
        for path in pictures.iterdir():
            found = json_objects(detector(cv2.imread(str(path))).above(SCORE))
            server.answers[path.read_bytes()] = json.dumps({"detections": found}).encode()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(service, pictures, tmp_path, *more):
    path = tmp_path / "report.json"
    url = f"http://127.0.0.1:{service.server_address[1]}"
    options = [
        *("--images", str(pictures), "--requests", "70", "--concurrency", "5"),
        *("--score", str(SCORE)),
        "--json",
        str(path),
    ]
    status = main(["serve", url, *options, "--json", str(path), *more])
    report = json.loads(path.read_text()) if path.exists() else None
    assert report is None or problems(report, "serve") == []
    return status, report


def test_the_figures_are_those_of_the_service(service, pictures, bundle_path, tmp_path, capsys):
    status, report = run(service, pictures, tmp_path, "--model", str(bundle_path), "--batch", "2")
    assert status == 0
    assert (report["requests"], report["statuses"], report["failures"]) == (70, {"200": 70}, {})
    assert (report["latency"]["count"], report["pictures"]) == (70, 3)
    inside = report["inside"]
    assert inside["batches"] == round(70 / 4)
    wanted = {"mean_batch": 4, "decode_ms": 2, "detect_ms": 10, "front_cpu_ms": 3}
    assert {name: inside[name] for name in wanted} == pytest.approx(wanted)
    alone = report["alone"]
    assert (alone["compared"], alone["differing"]) == (3, 0)
    assert alone["ratio"] > 0
    said = capsys.readouterr().out
    assert "70 requests of 3 pictures in turn, 5 at once" in said
    assert "detections equal for 3 of 3 pictures" in said
    assert re.search(rf"{report['throughput_rps']:.1f}\s*\n", said)
    inside["front_cpu_ms"] = None
    assert problems(report, "serve") == []
    for wrong in ({"surprise": 1}, {"alone": {}}, {"statuses": {"200": "many"}}, {"latency": 1}, {"schema_version": 2}):
        assert problems(report | wrong, "serve"), wrong


def test_a_status_other_than_200_is_counted_and_fails(service, pictures, tmp_path, capsys):
    service.seventh = 503
    status, report = run(service, pictures, tmp_path)
    assert status == 1
    assert report["statuses"] == {"200": 60, "503": 10}  # of 80, ten of which only warmed up: 11 in 80, 1 in 10
    assert report["latency"]["count"] == 60
    assert "failed: 10 requests of 70" in capsys.readouterr().out


def test_an_answer_that_differs_from_the_detectors_fails(service, pictures, bundle_path, tmp_path):
    for picture, answer in service.answers.items():
        found = json.loads(answer)["detections"]
        if found:
            found[0]["box"][0] += 0.5
            service.answers[picture] = json.dumps({"detections": found}).encode()
            break
    else:
        pytest.fail("nothing was found in any picture")
    status, report = run(service, pictures, tmp_path, "--model", str(bundle_path))
    assert (status, report["alone"]["differing"]) == (1, 1)


def test_a_service_that_is_not_ready_is_named(service, pictures, tmp_path, capsys):
    service.ready = 503
    assert run(service, pictures, tmp_path) == (1, None)
    assert "is not ready: status 503" in capsys.readouterr().err


def test_no_service_is_named(pictures, capsys):
    assert main(["serve", "http://127.0.0.1:9", "--images", str(pictures)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no service at 127.0.0.1:9: ")
    assert said.endswith("start one: cornernet-serve MODEL\n")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a:port"])
def test_what_is_no_url_is_named(url):
    with pytest.raises(ServeError, match="URL"):
        Target.of(url)


def test_a_url_names_host_port_path_and_scheme():
    assert Target.of("http://127.0.0.1:8000") == Target("127.0.0.1", 8000, secure=False, path="")
    assert Target.of("https://example.org/detector/") == Target("example.org", 443, secure=True, path="/detector")
    assert (
        Target.of("http://[::1]:80").head("GET", "/ready", 0).startswith(b"GET /ready HTTP/1.1\r\nHost: [::1]:80\r\n")
    )

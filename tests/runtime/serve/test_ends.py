"""How a service begins and ends: signals, and what keeps it from running."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from servers.served import command_of, descendants, running, start

from cornernet_runtime.cli.serve import main
from cornernet_runtime.serve.server import is_loopback, listen

if importlib.util.find_spec("ray") is None:
    pytest.skip('Ray is not installed: pip install "cornernet-trt[cluster]"', allow_module_level=True)


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


@pytest.mark.ray
def test_sigterm_finishes_what_is_under_way_and_leaves_nothing(bundle_path, picture):
    # Room in a batch and a long wait for it to be full, so that the signal comes while all are under way.
    service = start(bundle_path, "--batch", "64", "--batch-wait", "3000")
    service.wait_until("ready")
    below = descendants(service.process.pid)
    assert len(below) > 3  # Ray's own
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(service.ask, picture, token=None) for _ in range(8)]
        while service.metrics()["cornernet_requests_under_way"] < 9:  # the one that asks included
            time.sleep(0.05)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # for the socket to be closed
        with pytest.raises(ConnectionRefusedError):
            service.ask(picture)
        statuses = [answer.result()[0] for answer in answers]
        connections = [answer.result()[1]["connection"] for answer in answers]
    assert statuses == [200] * 8
    assert connections == ["close"] * 8
    assert service.process.wait(timeout=60) == 0
    end = time.monotonic() + 30
    while (left := [command_of(pid) for pid in below if command_of(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


@pytest.mark.ray
def test_too_long_is_504_and_too_many_are_told_to_come_back(bundle_path, picture):
    # A batch waits for longer than a request may take; 128 pictures can be under way in a replica then, and one waits.
    options = ["--batch", "64", "--batch-wait", "3000", "--timeout", "1", "--queue", "1"]
    with running(bundle_path, *options) as service, ThreadPoolExecutor(150) as clients:
        status, _, body = service.ask(picture)
        assert (status, json.loads(body)["detail"]) == (504, "no detections within 1 seconds; the service is too busy")
        answers = [one.result() for one in [clients.submit(service.ask, picture) for _ in range(150)]]
        refused = [headers for status, headers, _ in answers if status == 503]
        assert refused
        assert all(headers["retry-after"] == "1" for headers in refused)
        assert {status for status, _, _ in answers} <= {200, 503, 504}
        assert service.ask(path="/health", method="GET")[0] == 200


@pytest.mark.ray
def test_ctrl_c_while_the_model_is_loaded_ends_it_with_130(bundle_path):
    service = start(bundle_path)
    service.wait_until("listening")
    status, _, body = service.ask(path="/ready", method="GET")
    assert (status, b"being loaded" in body) == (503, True)
    assert service.ask(b"x")[0] == 503
    assert service.end(signal.SIGINT) == 130
    assert service.said[-1] == "interrupted"


@pytest.mark.ray
def test_a_model_that_cannot_be_opened_is_named_on_one_line(bundle):
    (bundle / "model.onnx").write_bytes(b"no model")
    service = start(bundle)
    assert service.process.wait(timeout=120) == 1
    service._reader.join()
    assert service.said[-1].startswith(f"error: {bundle / 'model.onnx'}: its hash is not the one in bundle.json")
    assert not any("Traceback" in line for line in service.said)


def test_a_port_that_is_taken_is_named(bundle_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main([str(bundle_path), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert said == f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"


def test_a_host_that_is_none_is_named(bundle_path, capsys):
    assert main([str(bundle_path), "--host", "no.such.host.invalid"]) == 1
    assert "no.such.host.invalid: no such host" in capsys.readouterr().err


def test_a_host_of_another_machine_is_named(bundle_path, capsys):
    assert main([str(bundle_path), "--host", "192.0.2.77", "--port", "0"]) == 1  # an address kept for documents
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: cannot listen on 192.0.2.77:0: ")


def test_no_model_is_named_before_ray_starts(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    expected = "is no bundle folder or .onnx file; cornernet-export makes bundles from checkpoints"
    assert said == f"error: {tmp_path / 'none'} {expected}\n"


@pytest.mark.parametrize(
    "content", [None, b"", b"short", b"with a space in it, as none", "ümlaute sind keine".encode()]
)
def test_a_token_file_without_a_token_is_named(bundle_path, tmp_path, capsys, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert main([str(bundle_path), "--token-file", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [["--port", "70000"], ["--batch", "0"], ["--timeout", "nan"], ["--gpus", "1.5"], ["--batch-wait", "-1"], ["--x"]],
)
def test_wrong_usage_ends_with_2(bundle_path, capsys, options):
    with pytest.raises(SystemExit) as ended:
        main([str(bundle_path), *options])
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.ray
def test_no_cluster_at_the_address_is_named(bundle_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    service = start(bundle_path, "--ray", address)
    assert service.process.wait(timeout=120) == 1
    service._reader.join()
    assert service.said[-1].startswith(f"error: no Ray at {address} (")
    assert "ray start --head" in service.said[-1]


def test_a_connection_sends_what_it_has_at_once():
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("::1", True), ("127.8.9.1", True), ("0.0.0.0", False), ("::", False), ("192.0.2.1", False)],  # noqa: S104
)
def test_loopback_addresses_are_known(host, inside):
    assert is_loopback(host) is inside


def test_a_host_that_lets_others_in_without_a_token_is_warned_of(bundle_path, capsys):
    with socket.create_server(("0.0.0.0", 0)) as other:  # noqa: S104 - taken, so that nothing starts
        assert main([str(bundle_path), "--host", "0.0.0.0", "--port", str(other.getsockname()[1])]) == 1  # noqa: S104
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: --host 0.0.0.0 lets others in, and no token is asked for; add --token-file")
    assert error.startswith("error: cannot listen on 0.0.0.0:")


def test_replicas_beyond_the_cores_are_refused(bundle_path, capsys):
    assert main([str(bundle_path), "--replicas", "4000"]) == 1
    assert re.fullmatch(
        r"error: --replicas 4000: this machine has \d+ cores?, and each replica .*\n", capsys.readouterr().err
    )


@pytest.mark.ray
def test_a_service_says_two_lines_and_takes_local_for_its_own_ray(bundle_path):
    with running(bundle_path, "--ray", "local") as service:
        assert service.end() == 0
    assert [line.partition(" ")[0] for line in service.said] == ["listening", "ready:"]

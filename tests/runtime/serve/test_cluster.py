"""A service in a cluster that runs already, and the Ray of a service that strangers try to use."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from places import python_path
from servers.served import command_of, descendants, running, start

from cornernet_runtime import Detector
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.errors import ModelError
from cornernet_runtime.json_lines import json_objects
from cornernet_runtime.serve.deployment import Replicas
from cornernet_runtime.serve.messages import Question
from cornernet_runtime.serve.options import ModelOptions, ServeRequest
from cornernet_runtime.serve.replica import DetectorReplica

if importlib.util.find_spec("ray") is None:
    pytest.skip('Ray is not installed: pip install "cornernet-trt[cluster]"', allow_module_level=True)

# A cluster of one machine: says its address, and for each line on standard input which applications there are.
CLUSTER = """
import sys, ray
from ray import serve
own = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
context = ray.init(address="local", log_to_driver=False, logging_level="ERROR", **own)
print(context.address_info["gcs_address"], flush=True)
for line in sys.stdin:
    print(sorted(serve.status().applications), flush=True)
"""
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("let in", flush=True)
"""


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # of the cluster, and of the services that tests start
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": python_path(*sys.path)}
    with subprocess.Popen(  # noqa: S603 - a fixed command
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()  # ends it
        process.wait(timeout=60)


@pytest.mark.ray
def test_a_cluster_that_runs_serves_and_goes_on_afterwards(cluster, bundle_path):
    address = cluster.stdout.readline().strip()
    frame = np.random.default_rng(0).integers(0, 256, (63, 95, 3), np.uint8)
    with Detector.open(bundle_path) as detector:
        wanted = json_objects(detector(frame).above(0.05))
    with running(bundle_path, "--ray", address, "--threads", "1", "--replicas", "2") as service:
        status, _, body = service.ask(cv2.imencode(".png", frame)[1].tobytes(), "/detect?score=0.05")
        assert (status, json.loads(body)["detections"]) == (200, wanted)
        assert json.loads(service.ask(path="/ready", method="GET")[2])["replicas"] == 2
        cluster.stdin.write("\n")
        cluster.stdin.flush()
        assert re.fullmatch(r"\['cornernet-serve-[0-9a-f]{8}'\]\n", cluster.stdout.readline())
        assert service.end() == 0
    cluster.stdin.write("\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "[]\n"


@pytest.mark.ray
def test_strangers_are_not_let_into_the_ray_of_a_service(bundle_path):
    service = start(bundle_path)
    try:
        service.wait_until("listening")  # Ray is up then
        commands = b"\0".join(map(command_of, descendants(service.process.pid))).decode(errors="replace")
        address = re.search(r"--gcs[-_]address=([\d.]+:\d+)", commands)[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with subprocess.Popen(  # noqa: S603 - a fixed command
            [sys.executable, "-c", STRANGER, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as stranger:
            said = next(line for line in stranger.stdout if "InvalidAuthToken" in line or "let in" in line)
            stranger.kill()
        assert "InvalidAuthToken" in said
    finally:
        service.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(timeout=60)


def test_services_of_two_machines_have_two_names():
    # In containers both may have process id 1; the second of one name would take the place of the first.
    request = ServeRequest(ModelOptions("model"))
    assert Replicas(request)._name != Replicas(request)._name


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")  # within Ray
def test_a_replica_with_another_model_says_so(bundle_path):
    options = ModelOptions(str(bundle_path), batch=1, sha256=identify(str(bundle_path)).sha256)
    opened = asyncio.run(DetectorReplica(options).info())
    assert (opened.name, opened.problem) == ("small", "")
    asyncio.run(DetectorReplica(options).check_health())

    async def ask_another():
        replica = DetectorReplica(replace(options, sha256="0" * 64))
        await replica.check_health()  # a start can still ask
        answer = await replica.detect(Question(b"", 0.3))
        assert (answer.content, answer.fault, str(bundle_path) in answer.problem) == (None, True, False)
        other = await replica.info()
        assert other.problem.startswith(f"{bundle_path} is another model here (SHA-256 {options.sha256[:12]}...)")
        with pytest.raises(ModelError, match="another model"):
            await replica.check_health()

    asyncio.run(ask_another())

"""A real service for tests: ``cornernet-serve`` in a process of its own, on a free port, with a Ray of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from places import python_path

START_S = 300  # on a busy machine; it takes seconds on others
TOKEN = "a-token-for-tests-0123456789"  # noqa: S105 - of the tests alone


class Service:
    """A service that was started; what it writes on standard error is in ``said``."""

    def __init__(self, process):
        self.process, self.said = process, []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))

    @property
    def port(self):
        """Where it listens."""
        return int(re.search(r":(\d+);", self.said[0])[1])

    @property
    def url(self):
        """The same as an address."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until(self, word):
        """Return once a line begins with a word."""
        end = time.monotonic() + START_S
        while not any(line.startswith(word) for line in list(self.said)):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def ask(self, body=None, path="/detect", method="POST", headers=(), token=TOKEN):
        """Return status, headers and body of the response to one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = dict(headers)
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def metrics(self):
        """Return the values of the service's metrics by name and labels."""
        text = self.ask(path="/metrics", method="GET")[2].decode()
        return {name: float(value) for name, value in re.findall(r"(?m)^(\w+(?:\{.*\})?) (\S+)$", text)}

    def replicas(self):
        """Return the process ids of the replicas."""
        return [pid for pid in descendants(self.process.pid) if b"ServeReplica" in command_of(pid)]

    def end(self, number=signal.SIGTERM):
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=START_S)


def start(model, *options):
    """Return a service of a model, on its way up."""
    command = [sys.executable, "-m", "cornernet_runtime.cli.serve", str(model), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": python_path(*sys.path)}
    process = subprocess.Popen(  # noqa: S603 - a fixed command
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    return Service(process)


@contextlib.contextmanager
def running(model, *options):
    """Yield a service that is ready, and end it."""
    service = start(model, *options)
    try:
        service.wait_until("ready")
        yield service
    finally:
        if service.process.poll() is None:
            service.end()
        service.process.wait(timeout=START_S)


def descendants(pid):
    """Return the ids of all processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # "id (name) state parent": the name may hold anything
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
    found, queue = [], [pid]
    while queue:
        above = queue.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        queue += below
    return found


def command_of(pid):
    """Return the command line of a process; empty once it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""

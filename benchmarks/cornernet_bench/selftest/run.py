"""The self-test: every layer that this machine can run, each in a process of its own, into one report.

A layer may crash, hang or be interrupted; what was found until then is kept. Nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.selftest.report import DOCTOR, LAYERS, PROGRESS, SCHEMA_VERSION, Finding, Outcome, Report, Request
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.machine import one_line
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT_SECONDS = 120.0  # for DOCTOR and MODEL, which are no layers
TAIL_LINES = 80  # of what a layer printed
DISTRIBUTIONS = (
    *("numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu", "rich", "pycocotools"),
    *("torch", "onnx", "onnxscript", "safetensors"),
    *("cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-cu13-libs"),
    *("tensorrt-lean", "tensorrt-lean-cu13-bindings", "tensorrt-lean-cu13-libs"),
)


def run_selftest(request: Request, say: Callable[[str], None], keep: Callable[[Report], None]) -> Report:
    """Run layers one after the other, each in a process of its own.

    Args:
        request: What to do.
        say: Called with a line of progress, also from another thread.
        keep: Called with the report when it begins, after each layer, and when it ends; that of an interrupted run has
            the interrupted layer, names those that were not run, and is partial.

    Raises:
        OutputError: Of ``keep``, which is called before anything takes long.
        KeyboardInterrupt: The user interrupted; ``keep`` was told.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    command = shlex.join(["cornernet-bench", *sys.argv[1:]])
    report = Report(SCHEMA_VERSION, __version__, now, command, True, "skipped", _versions(), {}, not_run=request.layers)
    keep(report)
    found, interrupted = run_layer(DOCTOR, request, SHORT_SECONDS, say)
    report = replace(report, doctor=found.figures or {"error": found.said})
    for layer in request.layers:
        if interrupted:
            break
        say(f"{layer}: {LAYERS[layer]}")
        start = time.monotonic()
        found, interrupted = run_layer(layer, request, request.limit_s, say)
        seconds = round(time.monotonic() - start, 1)
        state = found.state or "failed"
        report = report.with_layer(
            Outcome(layer, LAYERS[layer], state, found.said, seconds, found.figures, found.output)
        )
        keep(report)
    if interrupted:
        raise KeyboardInterrupt
    report = replace(report, partial=False)
    keep(report)
    return report


def run_layer(layer: str, request: Request, limit_s: float, say: Callable[[str], None]) -> tuple[Finding, bool]:
    """Run a layer, the doctor or a look at the model in a process of its own.

    Returns:
        What it found, whatever became of the process, and whether the user interrupted it.
    """
    with tempfile.TemporaryDirectory(prefix="cornernet-selftest-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "found.json"
        process = _start(layer, request, file)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        reader = threading.Thread(target=_read, args=(process, tail, lambda line: say(f"{layer}: {line}")), daemon=True)
        reader.start()
        ended, interrupted = "", False
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            ended = f"did not end within {limit_s:g} seconds, and was ended"
        except KeyboardInterrupt:
            interrupted = True
        finally:
            _end(process)
        reader.join(1)  # what hangs in a driver keeps its output open
        found, lines = _found(file), [line.rstrip() for line in list(tail)]
    found = replace(found, output="\n".join(filter(None, [found.output, *lines])))
    if interrupted:
        return replace(found, state="interrupted", said="by the user"), True
    if ended := ended or _why_unexpected(process.returncode, found, lines):
        so_far = f"{found.said}; then it " if found.said else ""
        return replace(found, state="failed", said=f"{so_far}{ended}"), False
    return found, False


def _start(layer: str, request: Request, file: Path) -> subprocess.Popen[str]:
    """Start a layer in a session of its own, which imports what this process would and leaves nothing lying about.

    Its standard input is a pipe that closes when this process ends, and ends it.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(file.parent)}
    module = "cornernet_bench.selftest.worker"
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-P", "-u", "-m", module, layer, str(file), json.dumps(to_json(request))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    )


def _read(process: subprocess.Popen[str], tail: deque[str], say: Callable[[str], None]) -> None:
    if process.stdout is None:
        raise AssertionError("it was started with a pipe")
    for line in process.stdout:
        if line.startswith(PROGRESS):
            say(line.removeprefix(PROGRESS).rstrip())
        else:
            tail.append(line)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process if it still runs, and all that it has started, which may outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)  # what hangs in a driver cannot be killed


def _found(file: Path) -> Finding:
    """Return what a layer wrote last, or that it wrote nothing."""
    try:
        return Finding(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return Finding(None, "")


def _why_unexpected(status: int, found: Finding, lines: list[str]) -> str:
    """Return what became of a process that did not end as it should, or nothing."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"crashed: {signal.Signals(-status).name}"
        return f"crashed: signal {-status}"
    if status or found.state is None:
        last = one_line(lines[-1]) if lines else ""
        return f"ended with status {status}" + (f": {last}" if last else "")
    return ""


def _versions() -> dict[str, str]:
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions

"""How many threads a network on the CPU is given: what this process may use, not what the machine has.

The libraries' own defaults are wrong in containers: ONNX Runtime starts a thread for each core of the host and pins it
there, even to a core that the process may not use, and no library minds a limit on CPU time, which then stops them all.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from cornernet_runtime.errors import BackendError


def check_threads(threads: int | None) -> int:
    """Return ``threads``, or by default as many as this process may use at once; raise BackendError below one."""
    if threads is None:
        return default_threads()
    if threads < 1:
        raise BackendError(f"threads: expected 1 or more, got {threads}")
    return threads


def default_threads(root: Path = Path("/")) -> int:
    """Return one thread for each core that this process may run on, no more than its limit on CPU time is worth.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_core_of(cpu, root) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _cpu_limit(root))))


def _core_of(cpu: int, root: Path) -> str:
    """Return the CPUs that share a core with this one: two threads in one core take longer than one."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii")
    return str(cpu)


def _cpu_limit(root: Path) -> float:
    """Return how many CPUs' time this process's control groups may use, of either version; infinite without a limit."""
    groups = {"": "/"}  # by controllers; version 2 has one group for all, without a name
    with contextlib.suppress(OSError, ValueError):
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        groups |= {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    limit = math.inf
    for controllers, path in groups.items():
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.lstrip("/")  # inside a container the group's path may be one of the host, which is not there
        for folder in {top, own, *(parent for parent in own.parents if parent.is_relative_to(top))}:
            limit = min(limit, _quota(folder))
    return limit


def _quota(folder: Path) -> float:
    """Return the limit of one group, in CPUs."""
    with contextlib.suppress(OSError, ValueError):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        if quota.strip() not in {"max", "-1"}:
            return int(quota) / int(period)
    return math.inf

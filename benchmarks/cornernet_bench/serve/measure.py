"""A service under load: requests a second, latency, batches, and what the detector alone would do."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.measuring.timing import Summary, environment, summarise
from cornernet_bench.serve.client import Connection, Load, Target, run_load
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import ServeError
from cornernet_runtime.json_lines import json_objects
from cornernet_runtime.pictures import decode_picture, find_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections

# A batch of another size may be computed in another order: an object may move by so much, or cross the least score.
_SCORE_TOLERANCE, _BOX_TOLERANCE = 1e-3, 0.1  # the latter in pixels


@dataclass(frozen=True, slots=True)
class ServeLoad:
    """What to measure.

    Attributes:
        url: Of the service.
        images: Folder, file or glob of the pictures to send, in turn.
        requests: How many in all.
        concurrency: Connections that each wait for a response before the next request.
        rounds: In which the requests are sent; the detector alone takes turns with them.
        score: Least score of an object.
        timeout_s: For one response.
        token: Of the service, or None.
        model: To run alone in turns and compare with, or None.
        backend: Of that; None is the best here.
        batch: Of that.
        threads: Of that on the CPU; None is one for each core.
    """

    url: str
    images: str
    requests: int = 1000
    concurrency: int = 16
    rounds: int = 4
    score: float = 0.3
    timeout_s: float = 60.0
    token: str | None = None
    model: Path | None = None
    backend: str | None = None
    batch: int = 8
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """What the service's own metrics say of the load.

    Attributes:
        batches: That it detected in.
        mean_batch: Pictures of one.
        decode_ms: Of a picture, waiting for the thread that decodes included.
        detect_ms: Of a batch, divided by its pictures.
        front_cpu_ms: CPU time of the process that takes requests, a request; None where it does not tell.
        retries: Requests that were sent again inside.
    """

    batches: int
    mean_batch: float
    decode_ms: float
    detect_ms: float
    front_cpu_ms: float | None
    retries: int


@dataclass(frozen=True, slots=True)
class Alone:
    """The detector by itself, in this process, on decoded pictures in memory.

    Attributes:
        fps: Pictures a second; the median of the rounds.
        ratio: The service's requests a second divided by that, the median of the rounds.
        compared: Pictures whose detections were compared.
        differing: Those for which a response said something else.
    """

    fps: float
    ratio: float
    compared: int
    differing: int


@dataclass(frozen=True, slots=True)
class ServeReport:
    """What a load came to.

    Attributes:
        url: Of the service.
        machine: That the load came from.
        requests: That were sent.
        concurrency: At the same time.
        pictures: That they sent, in turn.
        statuses: Responses by status.
        failures: Requests without a response, by reason.
        throughput_rps: Responses of status 200 a second.
        latency: Of these.
        client_cpu_ms: Of this process, a request.
        inside: By the service's metrics; None where it gives none.
        alone: The detector; None unless asked for.
    """

    url: str
    machine: str
    requests: int
    concurrency: int
    pictures: int
    statuses: dict[str, int]
    failures: dict[str, int]
    throughput_rps: float
    latency: Summary | None
    client_cpu_ms: float
    inside: Inside | None
    alone: Alone | None

    @property
    def failed(self) -> int:
        """Requests that got no response, or one that is not 200."""
        return self.requests - self.statuses.get("200", 0)


def measure(request: ServeLoad, say: Callable[[str, int, int], None]) -> ServeReport:
    """Load a service and return what came of it.

    Args:
        request: What to measure.
        say: Told what is done, how many requests of it and of how many.

    Raises:
        ServeError: The service does not answer.
        FrameError: There are no pictures, or one cannot be decoded.
        CornerNetError: The model cannot be opened.
    """
    target = Target.of(request.url, request.token)
    contents = [path.read_bytes() for path in find_pictures([request.images])]
    frames: list[NDArray[np.uint8]] = []
    detector = None
    if request.model is not None:
        frames = [decode_picture(content, f"picture {number}") for number, content in enumerate(contents)]
        detector = Detector.open(request.model, request.backend, threads=request.threads)
        detector.batch(frames[: request.batch])
    try:
        asyncio.run(_check(target, request.timeout_s))
        load_with = functools.partial(
            run_load,
            target,
            contents,
            concurrency=request.concurrency,
            timeout_s=request.timeout_s,
            path=f"/detect?score={request.score:g}",
        )
        asyncio.run(load_with(requests=2 * request.concurrency, say=_mute))
        before = asyncio.run(_metrics(target, request.timeout_s))
        loads: list[Load] = []
        bare: list[float] = []
        for number, count in enumerate(_parts(request.requests, request.rounds)):
            done = sum(load.statuses.total() + load.failures.total() for load in loads)
            tell = lambda now, done=done: say("serving", done + now, request.requests)  # noqa: E731 - of this round
            loads.append(asyncio.run(load_with(requests=count, say=tell)))
            if detector is not None:
                say(f"detecting alone, round {number + 1}", 0, 0)
                bare.append(_alone(detector, frames, request.batch))
        inside = _inside(before, asyncio.run(_metrics(target, request.timeout_s)), request.requests)
        alone = None if detector is None else _compare(detector, frames, request.score, loads, bare)
    finally:
        if detector is not None:
            detector.close()
    return _report(request, len(contents), loads, inside, alone)


def _mute(_done: int) -> None:
    pass


def _parts(requests: int, rounds: int) -> list[int]:
    """Return how many requests each round has."""
    rounds = min(rounds, requests)
    return [requests * (number + 1) // rounds - requests * number // rounds for number in range(rounds)]


def _report(
    request: ServeLoad, pictures: int, loads: Sequence[Load], inside: Inside | None, alone: Alone | None
) -> ServeReport:
    statuses = sum((load.statuses for load in loads), Counter())
    failures = sum((load.failures for load in loads), Counter())
    times = [one for load in loads for one in load.times_ms]
    return ServeReport(
        url=request.url,
        machine=environment(),
        requests=request.requests,
        concurrency=request.concurrency,
        pictures=pictures,
        statuses={str(status): count for status, count in sorted(statuses.items())},
        failures=dict(failures.most_common()),
        throughput_rps=statuses[200] / sum(load.seconds for load in loads),
        latency=summarise(times) if times else None,
        client_cpu_ms=1000 * sum(load.cpu_s for load in loads) / request.requests,
        inside=inside,
        alone=alone,
    )


def _alone(detector: Detector, frames: Sequence[NDArray[np.uint8]], batch: int) -> float:
    """Return the pictures a second of the detector by itself."""
    start = time.perf_counter()
    for first in range(0, len(frames), batch):
        detector.batch(frames[first : first + batch])
    return len(frames) / (time.perf_counter() - start)


def _compare(
    detector: Detector,
    frames: Sequence[NDArray[np.uint8]],
    score: float,
    loads: Sequence[Load],
    bare: Sequence[float],
) -> Alone:
    answers: dict[int, set[bytes]] = {}
    for load in loads:
        for number, body in load.bodies:
            answers.setdefault(number, set()).add(body)
    differing = 0
    for number, bodies in answers.items():
        expected = detector(frames[number]).above(score)
        differing += not all(_equal(json.loads(body)["detections"], expected) for body in bodies)
    ratios = [load.statuses[200] / load.seconds / fps for load, fps in zip(loads, bare, strict=True)]
    return Alone(float(np.median(bare)), float(np.median(ratios)), len(answers), differing)


def _equal(found: list[dict[str, Any]], expected: Detections) -> bool:
    """Say whether a response has the detections of the detector, within the tolerance of another batch."""
    wanted = json_objects(expected)
    if [one["label"] for one in found] != [one["label"] for one in wanted]:
        return False
    scores = np.array([[one["score"] for one in side] for side in (found, wanted)], np.float64)
    boxes = np.array([[one["box"] for one in side] for side in (found, wanted)], np.float64)
    return bool((abs(scores[0] - scores[1]) <= _SCORE_TOLERANCE).all()) and bool(
        (abs(boxes[0] - boxes[1]) <= _BOX_TOLERANCE).all()
    )


async def _check(target: Target, timeout_s: float) -> None:
    """Raise ServeError unless the service is ready."""
    connection = Connection(target, timeout_s)
    try:
        status, body = await connection.ask("GET", "/ready")
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error) or f"no answer within {timeout_s:g} seconds"
        where = f"{target.host}:{target.port}"
        raise ServeError(f"no service at {where}: {reason}; start one: cornernet-serve MODEL") from error
    finally:
        connection.close()
    if status != 200:
        text = body[:200].decode(errors="replace")
        raise ServeError(f"the service at {target.host}:{target.port} is not ready: status {status}: {text}")


async def _metrics(target: Target, timeout_s: float) -> dict[str, float] | None:
    """Return the sums of the service's metrics by name, or None if it gives none."""
    connection = Connection(target, timeout_s)
    try:
        status, body = await connection.ask("GET", "/metrics")
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        connection.close()
    if status != 200:
        return None
    found = re.findall(r"(?m)^(\w+) (\S+)$", body.decode(errors="replace"))
    return {name: float(value) for name, value in found}


def _inside(before: dict[str, float] | None, after: dict[str, float] | None, requests: int) -> Inside | None:
    if before is None or after is None:
        return None
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    batches, pictures = (grown.get(f"cornernet_batch_size_{name}", 0.0) for name in ("count", "sum"))
    if not batches or not math.isfinite(pictures):
        return None
    return Inside(
        batches=round(batches),
        mean_batch=pictures / batches,
        decode_ms=1000 * grown["cornernet_decode_seconds_sum"] / pictures,
        detect_ms=1000 * grown["cornernet_detect_seconds_sum"] / pictures,
        front_cpu_ms=1000 * seconds / requests if (seconds := grown.get("process_cpu_seconds_total")) else None,
        retries=round(grown.get("cornernet_retries_total", 0.0)),
    )

"""How a service is to run, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_runtime.errors import ServeError

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

_SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for.

    Attributes:
        body_bytes: Of a body, as sent.
        pixels: Width times height of a picture, as its header says.
        upload_s: Seconds in which a body must have come.
        answer_s: Seconds in which its detections must be there, waiting and new attempts included.
        waiting: Requests that wait for a replica; further ones are told to come back.
        uploads: Bodies that are received at the same time; the same.
        uploads_bytes: Of all of them together; the same.
        connections: At the same time, the silent ones included; the same, and more than twice as many are not accepted.
        head_bytes: Of what comes before a body: the address and the headers.
    """

    body_bytes: int = 20 * MIB
    pixels: int = 40_000_000
    upload_s: float = 30.0
    answer_s: float = 30.0
    waiting: int = 128
    uploads: int = 256
    uploads_bytes: int = 1024 * MIB
    connections: int = 448  # each is a file, and a process often may have 1024
    head_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model and how each replica runs it.

    Attributes:
        path: Bundle folder or ``.onnx`` file, by a path that every machine of the cluster knows.
        backend: What runs the network; None is the best there.
        flip: Whether to look at each picture's mirror image too.
        scales: At which to look at each picture.
        batch: Most pictures detected in together.
        batch_wait_s: Seconds for which an incomplete batch waits for more.
        threads: Of a replica's network on the CPU.
        sha256: That the model must have where a replica runs, see ``cluster.model.identify``; None asks for none.
    """

    path: str
    backend: str | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    batch: int = 8
    batch_wait_s: float = 0.005
    threads: int = 1
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """A service.

    Attributes:
        model: What it detects with.
        limits: What it refuses.
        host: Name or address that it listens on.
        port: The same; 0 takes a free one.
        token: That requests for detections have to bring; None asks for none.
        replicas: Detectors, each in a process of its own.
        gpus: Of each replica, a share or a whole number.
        cluster: Address of a Ray cluster; None starts Ray on this machine.
        drain_s: Seconds in which requests under way are finished when the service is to end.
    """

    model: ModelOptions
    limits: Limits = Limits()
    host: str = "127.0.0.1"
    port: int = 8000
    token: bytes | None = None
    replicas: int = 1
    gpus: float = 0.0
    cluster: str | None = None
    drain_s: float = 30.0


def read_token(path: Path) -> bytes:
    """Return the token that a file holds, without white space around it.

    Raises:
        ServeError: The file cannot be read, or holds no token: 16 to 4096 printable ASCII characters without a space.
    """
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise ServeError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not _SHORTEST_TOKEN <= len(content) <= 4096 or not all(0x21 <= byte <= 0x7E for byte in content):
        raise ServeError(
            f"{path}: holds no token: expected at least {_SHORTEST_TOKEN} printable ASCII characters on one line, "
            f"such as: openssl rand -hex 32 > {path}"
        )
    return content

"""The connection to Ray: a cluster that somebody started, or a Ray of its own on this machine."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL = "local"
OBJECT_STORE_BYTES = 256 * 1024**2  # of a Ray of its own: what goes through it are lists of names, and counts
PROBE_SECONDS = 5.0
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
_HTTP2_SETTINGS = 4  # type of the frame that answers, in its fourth byte
_RAY_THREAD = "ray_listen_error_messages"
START = (
    "start one with `ray start --head` and give its address, HOST:6379 there, or give `local` for one on this machine"
)


def import_ray(part: Literal["data", "serve"] = "data") -> Any:  # noqa: ANN401 - an extra
    """Return Ray with one of its libraries, which then sends no usage statistics.

    Raises:
        ClusterError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else a call that comes after the end of a connection makes another one, to whatever cluster there is.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else it logs to standard error, whatever it is told
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    try:
        import ray  # noqa: PLC0415 - an extra, and slow to import
        import ray.util.annotations  # noqa: PLC0415

        importlib.import_module(f"ray.{part}")
    except ImportError as error:
        raise ClusterError(
            f'Ray with its library {part} is not installed ({error}); pip install "cornernet-trt[cluster]"'
        ) from error
    return ray


def join(address: str, part: Literal["data", "serve"] = "data", **own: Any) -> None:  # noqa: ANN401 - of Ray
    """Connect this process to Ray, whose token is used where the cluster asks for one.

    Args:
        address: HOST:PORT of a cluster that this machine is part of, ``auto`` for the one that was started here, or
            ``local`` for a Ray of its own, which nobody else can use and which ``ray.shutdown()`` ends.
        part: Library of Ray that is needed.
        own: Options of ``ray.init`` for a Ray of its own, beyond those that are always given.

    Raises:
        ClusterError: Ray is not installed, or there is none at the address, or one of another version, or one that asks
            for another token.
    """
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False, **own}
    elif address != "auto":
        _probe(address)
    _provide_token(own=address == LOCAL)
    ray = import_ray(part)
    try:
        with _silent_descriptor():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        if address == LOCAL:
            raise ClusterError(f"Ray cannot be started on this machine: {one_line(error)}") from error
        raise ClusterError(
            f"no Ray at {address} that this machine is part of, or one with another token ({one_line(error)}); "
            f"{START}; a token is taken from RAY_AUTH_TOKEN or from where Ray keeps it"
        ) from error


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM after the block: Ray sets its own, and leaves it behind when it is shut down.

    Off the main thread this does nothing, and nor does Ray.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # one that Python did not set and cannot name
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Stay connected to Ray while the block lasts; a connection that this process has already is used, and stays.

    Args:
        address: As for ``join``; a Ray of its own is stopped at the end.

    Raises:
        ClusterError: As for ``join``.
    """
    if "ray" in sys.modules and (ray := import_ray()).is_initialized():
        with _quiet(ray):
            yield
        return
    with sigterm_kept():
        join(address, num_cpus=default_threads())
        ray = import_ray()
        try:
            with _quiet(ray):
                yield
        finally:
            with contextlib.redirect_stdout(io.StringIO()):  # it repeats there what it held back of workers that died
                ray.shutdown()


def one_line(error: BaseException) -> str:
    """Return the last line of an error of Ray's, which holds a worker's traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """Leave progress and errors to the caller, for Ray writes pages of both, some of them to standard output."""
    context = ray.data.DataContext.get_current()
    told = {"enable_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in told}
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    output = sys.stdout
    sys.stdout = cast("TextIO", _WithoutRay(output))
    try:
        for name, value in told.items():
            setattr(context, name, value)
        yield
    finally:
        sys.stdout = output
        log.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


class _WithoutRay:
    """A stream that takes nothing from the thread of Ray's that repeats what goes wrong on workers.

    That thread minds no option. What ends a run is raised as well, and a worker that died is replaced.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text of another thread."""
        return len(text) if threading.current_thread().name == _RAY_THREAD else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of any stream
        return getattr(self._stream, name)


@contextlib.contextmanager
def _silent_descriptor() -> Iterator[None]:
    """Send descriptor 2 to nowhere: the part of Ray in C++ writes there, which log level it was told, for one."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _provide_token(*, own: bool) -> None:
    """Have a Ray of its own ask for a token that nobody else knows; bring the user's to others, which need not ask.

    Ray listens on every interface, and runs what it is sent. It reads these variables when it is imported.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if own:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        return
    with contextlib.suppress(RuntimeError):  # there is no home folder
        kept = (Path.home() / ".ray" / "auth_token").is_file()
        if kept or not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}.isdisjoint(os.environ):
            os.environ["RAY_AUTH_MODE"] = "token"


def _probe(address: str) -> None:
    """Raise ClusterError unless something there speaks HTTP/2 as Ray does, which itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ClusterError(
            f"expected HOST:PORT of a Ray cluster that this machine is part of, `auto` or `local`, got {address!r}; "
            "to run on a cluster from elsewhere: ray job submit --address ... -- COMMAND --ray auto"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray at {address} ({getattr(error, 'strerror', None) or error}); {START}") from error
    if len(answer) < 4 or answer[3] != _HTTP2_SETTINGS:
        raise ClusterError(f"no Ray at {address} (somebody else listens there); {START}")

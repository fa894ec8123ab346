"""``cornernet-serve``: pictures in, boxes out, over HTTP, on Ray Serve."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.cli.common import INTERRUPTED, run_command
from cornernet_runtime.cli.options import add_view_options, share, whole_number
from cornernet_runtime.cluster.connect import LOCAL
from cornernet_runtime.errors import CornerNetWarning, ServeError
from cornernet_runtime.machine import core_count
from cornernet_runtime.serve.options import MIB, Limits, ModelOptions, ServeRequest, read_token
from cornernet_runtime.wording import count_of, plain

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _serve(arguments))


def _serve(arguments: argparse.Namespace) -> int:
    from cornernet_runtime.serve.server import is_loopback, serve  # noqa: PLC0415 - keeps --help quick

    token = read_token(arguments.token_file) if arguments.token_file is not None else None
    if token is None and not is_loopback(arguments.host):
        message = f"--host {arguments.host} lets others in, and no token is asked for; add --token-file FILE"
        warnings.warn(message, CornerNetWarning, stacklevel=1)
    cluster = None if arguments.ray == LOCAL else arguments.ray
    if cluster is None and not arguments.gpus and arguments.replicas > core_count():
        cores = count_of(core_count(), "core")
        raise ServeError(
            f"--replicas {arguments.replicas}: this machine has {cores}, and each replica keeps one busy; ask for fewer"
        )
    limits = Limits(
        body_bytes=arguments.max_bytes,
        pixels=arguments.max_pixels,
        upload_s=arguments.upload_timeout,
        answer_s=arguments.timeout,
        waiting=arguments.queue,
    )
    model = ModelOptions(
        path=str(Path(arguments.model).absolute()) if cluster is None else arguments.model,
        backend=arguments.backend,
        flip=arguments.flip,
        scales=arguments.scales,
        batch=arguments.batch,
        batch_wait_s=arguments.batch_wait / 1000,
        threads=arguments.threads or max(1, core_count() // arguments.replicas),
    )
    request = ServeRequest(
        model=model,
        limits=limits,
        host=arguments.host,
        port=arguments.port,
        token=token,
        replicas=arguments.replicas,
        gpus=arguments.gpus,
        cluster=cluster,
        drain_s=arguments.drain,
    )
    ended_by = serve(request, _say)
    if ended_by == signal.SIGINT:
        _say("interrupted")
        return INTERRUPTED
    return 0


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr, flush=True)  # noqa: T201 - plain on purpose: no markup, no wrapping


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cornernet-serve",
        description="Detect objects in pictures that come over HTTP, in batches, on Ray Serve. The page of the service "
        "shows what it does; /openapi.json describes its requests.",
    )
    parser.add_argument("model", metavar="MODEL", help="a bundle folder or an .onnx file of cornernet-export")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=_port, default=8000, help="to listen on, 0 for a free one (default 8000)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds a token that requests must bring (default: none)"
    )
    parser.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best there)")
    add_view_options(parser)
    replicas = parser.add_argument_group("replicas")
    replicas.add_argument("--replicas", type=whole_number, default=1, metavar="N", help="detectors (default 1)")
    replicas.add_argument(
        "--threads",
        type=whole_number,
        metavar="N",
        help="of each on the CPU (default: the cores, divided by --replicas)",
    )
    replicas.add_argument("--gpus", type=share, default=0.0, metavar="N", help="of each, such as 1 or 0.5 (default 0)")
    replicas.add_argument(
        "--batch", type=whole_number, default=8, metavar="N", help="most pictures at once (default 8)"
    )
    replicas.add_argument(
        "--batch-wait", type=_not_negative, default=5.0, metavar="MS", help="for a full batch (default 5)"
    )
    replicas.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster (default local: Ray is started here)")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-bytes",
        type=whole_number,
        default=Limits().body_bytes,
        metavar="N",
        help=f"of a body (default {20 * MIB})",
    )
    limits.add_argument(
        "--max-pixels", type=whole_number, default=Limits().pixels, metavar="N", help="of a picture (default 40000000)"
    )
    limits.add_argument(
        "--queue", type=whole_number, default=128, metavar="N", help="requests that may wait (default 128)"
    )
    limits.add_argument(
        "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="until detections are there (default 30)"
    )
    limits.add_argument(
        "--upload-timeout", type=_seconds, default=30.0, metavar="SECONDS", help="until a body is there (default 30)"
    )
    limits.add_argument(
        "--drain", type=_seconds, default=30.0, metavar="SECONDS", help="for requests under way at the end (default 30)"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else math.nan


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, at most a day, got {text!r}")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"expected milliseconds from 0 to 60000, got {text!r}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())

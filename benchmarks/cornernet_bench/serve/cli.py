"""``cornernet-bench serve``: a running service under load."""

from __future__ import annotations

import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.options import AS_OBJECT, count_text, progress_bar
from cornernet_bench.reports.blocks import print_blocks
from cornernet_bench.reports.outputs import check_outputs, console_for_report, write_json
from cornernet_bench.serve.tables import blocks
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.cli.options import parse_score

if TYPE_CHECKING:
    import argparse

    from cornernet_bench.serve.measure import ServeReport

SCHEMA_VERSION = 1  # of the JSON


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser(
        "serve",
        help="a running service under load",
        description="Load a service of cornernet-serve with pictures: requests a second, latency, statuses, batches by "
        "its metrics; with --model beside the detector alone, which takes turns with it, and whose detections are "
        "compared with the responses. Exit status 1 if a request failed or a response differs.",
    )
    parser.add_argument("url", metavar="URL", help="of the service, such as http://127.0.0.1:8000")
    parser.add_argument("--images", required=True, metavar="DIR", help="pictures to send in turn: a folder or a glob")
    parser.add_argument("--requests", type=count_text, default=1000, metavar="N", help="in all (default 1000)")
    parser.add_argument("--concurrency", type=count_text, default=16, metavar="N", help="at once (default 16)")
    parser.add_argument("--rounds", type=count_text, default=4, metavar="N", help="they come in (default 4)")
    parser.add_argument(
        "--timeout", type=count_text, default=60, metavar="SECONDS", help="for one response (default 60)"
    )
    parser.add_argument("--score", type=parse_score, default=0.3, help="least score of an object, 0 to 1 (default 0.3)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token that the service asks for")
    alone = parser.add_argument_group("the detector alone, on this machine")
    alone.add_argument("--model", type=Path, metavar="MODEL", help="a bundle or an .onnx file (default: not measured)")
    alone.add_argument("--backend", metavar="NAME", help="what runs its network (default: the best here)")
    alone.add_argument("--batch", type=count_text, default=8, metavar="N", help="pictures a call (default 8)")
    alone.add_argument("--threads", type=count_text, metavar="N", help="of the CPU (default: one for each core)")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the figures {AS_OBJECT}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.serve.measure import ServeLoad, measure  # noqa: PLC0415 - keeps --help quick
    from cornernet_runtime.serve.options import read_token  # noqa: PLC0415 - as above

    check_outputs(arguments.json)
    token = None if arguments.token_file is None else read_token(arguments.token_file).decode()
    request = ServeLoad(
        url=arguments.url,
        images=arguments.images,
        requests=arguments.requests,
        concurrency=arguments.concurrency,
        rounds=arguments.rounds,
        score=arguments.score,
        timeout_s=arguments.timeout,
        token=token,
        model=arguments.model,
        backend=arguments.backend,
        batch=arguments.batch,
        threads=arguments.threads,
    )
    with progress_bar(console_for_people()) as say:
        report = measure(request, say)
    try:  # the file first: whoever reads the tables may stop in the midst of them
        write_json(arguments.json, as_json(report))
    finally:
        print_blocks(console_for_report(arguments.json), blocks(report))
    return 1 if report.failed or (report.alone is not None and report.alone.differing) else 0


def as_json(report: ServeReport) -> dict[str, Any]:
    """Return what ``--json`` writes: the report, when it was made and with which command."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["cornernet-bench", *sys.argv[1:]]),
        **to_json(report),
    }

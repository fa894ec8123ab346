"""``cornernet-bench``: what a model is worth."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cornernet_bench.accuracy import cli as accuracy_cli
from cornernet_bench.compare import cli as compare_cli
from cornernet_bench.kernels import cli as kernels_cli
from cornernet_bench.latency import cli as latency_cli
from cornernet_bench.oracle import cli as oracle_cli
from cornernet_bench.selftest import cli as selftest_cli
from cornernet_bench.serve import cli as serve_cli
from cornernet_bench.stream import cli as stream_cli
from cornernet_bench.tune import cli as tune_cli
from cornernet_runtime.cli.common import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="cornernet-bench", description="Measure a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    accuracy_cli.add_command(commands)
    compare_cli.add_command(commands)
    kernels_cli.add_command(commands)
    latency_cli.add_command(commands)
    oracle_cli.add_command(commands)
    selftest_cli.add_command(commands)
    serve_cli.add_command(commands)
    stream_cli.add_command(commands)
    tune_cli.add_command(commands)
    arguments = parser.parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

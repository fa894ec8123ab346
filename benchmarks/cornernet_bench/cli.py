"""``cornernet-bench``: what a model is worth."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from cornernet_runtime.cli.common import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {  # where the command line of each is
    "accuracy": "cornernet_bench.accuracy.cli",
    "compare": "cornernet_bench.compare.cli",
    "kernels": "cornernet_bench.kernels.cli",
    "latency": "cornernet_bench.latency.cli",
    "oracle": "cornernet_bench.oracle.cli",
    "selftest": "cornernet_bench.selftest.cli",
    "serve": "cornernet_bench.serve.cli",
    "stream": "cornernet_bench.stream.cli",
    "tune": "cornernet_bench.tune.cli",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="cornernet-bench", description="Measure a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # Only what runs is imported; where no command comes first, all are listed.
    for name in given[:1] if COMMANDS.keys() & given[:1] else COMMANDS:
        import_module(COMMANDS[name]).add_command(commands)
    arguments = parser.parse_args(given)
    return run_command(lambda: arguments.run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

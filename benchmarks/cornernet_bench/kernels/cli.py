"""``cornernet-bench kernels``: the CUDA kernels checked and, where there is a GPU, timed."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cornernet_bench.options import AS_OBJECT
from cornernet_bench.reports.outputs import check_outputs, console_for_report, write_json
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.machine import core_count, cpu_name

if TYPE_CHECKING:
    from rich.console import Console

    from cornernet_bench.kernels.check import GpuReport, KernelReport
    from cornernet_bench.kernels.resources import Resources

LAYERS = ("L1", "L2", "L5")
RESOURCES = ("threads", "shared_bytes", "registers", "blocks_in_flight")  # a column each
_STYLES = {"passed": "green", "skipped": "yellow", "failed": "bold red"}


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser(
        "kernels",
        help="check the CUDA kernels, and time them where there is a GPU",
        description="Check the CUDA kernels. L1: on the CPU, in a checkout. L2: compiled for every architecture. "
        "L5: on a GPU, where they are timed as well.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write what was found {AS_OBJECT}")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="also write L2's table as Markdown, between the marks of a document"
    )
    parser.add_argument("--layers", type=_layers, default=LAYERS, metavar="L,L,...", help="some of L1,L2,L5")
    parser.add_argument(
        "--architectures", type=_numbers, metavar="N,N,...", help="for L2, such as 80,90 (default: all supported)"
    )
    parser.add_argument("--cases", type=_count, default=20, metavar="N", help="random cases a kernel (default 20)")
    parser.add_argument(
        "--iterations", type=_count, default=200, metavar="N", help="timed runs a case (default 200); 0 only checks"
    )
    parser.add_argument("--seed", type=_count, default=0, metavar="S", help="of shapes and values (default 0)")
    parser.add_argument("--sanitize", action="store_true", help="also check under compute-sanitizer, some minutes")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.kernels.check import Request, check_kernels  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.kernels.resources import LIMITS, write_table  # noqa: PLC0415

    console = console_for_people()
    chosen = arguments.architectures or tuple(LIMITS)
    if unknown := [number for number in chosen if number not in LIMITS]:
        known = ", ".join(map(str, LIMITS))
        raise CornerNetError(f"--architectures: expected some of {known}, got {', '.join(map(str, unknown))}")
    request = Request(
        arguments.layers,
        chosen,
        arguments.cases,
        arguments.iterations,
        sanitize=arguments.sanitize,
        seed=arguments.seed,
    )
    check_outputs(arguments.json, arguments.table)
    report = check_kernels(request, lambda line: console.print(line, style="dim", soft_wrap=True, markup=False))
    _print(console_for_report(arguments.json), report)
    if arguments.json:
        content = {
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["cornernet-bench", *sys.argv[1:]]),
            "cpu": f"{cpu_name()}, {core_count()} cores",
            **to_json(report),
        }
        write_json(arguments.json, content)
    if arguments.table and report.resources:
        write_table(arguments.table, report.resources)
    if report.failed:
        failed = (f"{layer.name}: {layer.said}" for layer in report.layers if layer.state == "failed")
        raise CornerNetError("; ".join(failed))
    return 0


def _print(console: Console, report: KernelReport) -> None:
    if report.resources:
        _print_resources(console, report)
    if report.gpu:
        _print_gpu(console, report.gpu)
    for layer in report.layers:
        style = _STYLES[layer.state]
        console.print(f"[{style}]{layer.name} {layer.state}[/]: {escape(layer.said)}", soft_wrap=True)


def _print_resources(console: Console, report: KernelReport) -> None:
    """Print a row a kernel, over all architectures; a column for each would leave a terminal no room for the names."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("kernel", overflow="fold")
    for heading in ("threads", "shared B", "registers", "in flight"):
        table.add_column(heading, justify="right", no_wrap=True)
    kernels: dict[str, list[Resources]] = {}
    for row in report.resources:
        kernels.setdefault(f"{row.source}: {row.kernel}", []).append(row)
    for name, rows in kernels.items():
        columns = ([getattr(row, field) for row in rows] for field in RESOURCES)
        table.add_row(escape(name), *(_range(values) for values in columns))
    console.print(table)
    console.print("in flight: blocks that a multiprocessor holds; by architecture with --table FILE", soft_wrap=True)


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _print_gpu(console: Console, gpu: GpuReport) -> None:
    facts = gpu.facts
    console.print(
        f"{facts.name}, compute capability {facts.capability}, {facts.multiprocessors} multiprocessors, L2 "
        f"{facts.l2_mib:.0f} MiB, driver {gpu.driver_version or 'unknown'} (CUDA {facts.cuda_version}); a copy moves "
        f"{gpu.copy_gb_s:.0f} GB/s; {gpu.empty_us:.2f} us of each time are the events' own",
        soft_wrap=True,
        markup=False,
    )
    if not gpu.timings:
        return
    first = gpu.timings[0]
    title = f"{first.iterations} runs after {first.warm_up} to warm up, {first.input_sets} input sets, L2 emptied"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for heading in (*(name.replace("_", " ") for name in first.times_us), "GB/s", "of copy", "floor us"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in gpu.timings:
        times = (f"{value:.2f}" for value in one.times_us.values())
        rates = (f"{one.bandwidth_gb_s:.0f}", f"{100 * one.copy_share:.0f} %", f"{one.floor_us:.2f}")
        table.add_row(escape(f"{one.kernel}: {one.title}"), *times, *rates)
    console.print(table)
    for one in gpu.timings:
        if one.target_us is not None:
            median = one.times_us["p50_us"]
            said = f"{one.kernel}: {one.title}: {median:.2f} us, at most {one.target_us:.0f} us wanted"
            console.print(said, soft_wrap=True, markup=False)


def _layers(text: str) -> tuple[str, ...]:
    layers = tuple(text.split(","))
    if not set(layers) <= set(LAYERS) or len(set(layers)) < len(layers):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(LAYERS)}, got {text!r}")
    return layers


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 80,90, got {text!r}") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, got {text!r}")
    return int(text)

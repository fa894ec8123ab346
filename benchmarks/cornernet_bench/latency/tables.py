"""A latency report as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cornernet_bench.measuring.measurement import END_TO_END
from cornernet_bench.reports.blocks import Line, print_blocks
from cornernet_bench.reports.words import SHOWN_LIBRARIES, ms_text, stage_name, thread_text
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from cornernet_bench.latency.report import BatchResult, LatencyReport
    from cornernet_bench.measuring.measurement import Measurement
    from cornernet_bench.measuring.timing import Summary
    from cornernet_bench.reports.blocks import Block


def print_report(console: Console, report: LatencyReport) -> None:
    """Print what was measured on what, a table for each batch, then what is doubtful."""
    print_blocks(console, blocks(report))


def blocks(report: LatencyReport) -> Iterator[Block]:
    """Yield what a report consists of, for the terminal and for other media."""
    yield from map(Line, _head(report))
    for result in report.results:
        yield Line(_title(result), "heading")
        yield _stage_table(result)
        if result.baseline is not None:
            flip = "on" if report.model.flip else "off"
            weights = report.baseline_weights or ""
            weights = weights if weights.startswith("random weights") else f"weights {weights}"
            yield Line(f"the published pipeline in turns with it, flip {flip}, {weights}; medians")
            yield _ratio_table(result.model, result.baseline, result.ratios)
    if report.workers is not None:
        workers, calls = report.workers, report.workers.end_to_end
        yield Line(
            f"{workers.count} workers, {count_of(workers.batch, 'frame')} a call each: "
            f"{workers.throughput_fps:.2f} frames/s together; a call takes {ms_text(calls.p50_ms)} ms (p50), "
            f"{ms_text(calls.p95_ms)} (p95), by the host's clock",
            "heading",
        )
    yield from (Line(f"warning: {line}", "warning") for line in report.warnings)
    if report.partial:
        yield Line("interrupted: these are partial results", "warning")


def _head(report: LatencyReport) -> list[str]:
    model, machine = report.model, report.machine
    views = [f"flip {'on' if model.flip else 'off'}"]
    if model.scales != (1.0,):
        views.append(f"scales {', '.join(f'{scale:g}' for scale in model.scales)}")
    inputs, frames = (" ".join(f"{h}x{w}" for h, w in sizes) for sizes in (model.input_sizes, report.frame_sizes))
    clock = "" if machine.cpu_mhz is None else f" at {machine.cpu_mhz:.0f} MHz"
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in SHOWN_LIBRARIES if name in machine.versions)
    calls = f"{report.iterations} calls"
    if report.partial:
        calls = f"{', '.join(str(result.calls) for result in report.results)} of {calls}"
    lines = [
        f"{model.path}: {model.name} in {model.backend}, {model.precision}, input {inputs}, {', '.join(views)}",
        f"frames {frames}, {report.frames}; {calls} after {report.warm_up} to warm up",
        f"{machine.cpu}, {count_of(machine.cores, 'core')}{clock}; threads: {thread_text(machine)}; {versions}",
    ]
    if machine.gpu is not None and model.device_memory_mib is not None:
        gpu = machine.gpu
        lines.append(
            f"{gpu.name}, driver {gpu.driver_version}, multiprocessors at {gpu.sm_clock_mhz} of "
            f"{gpu.sm_clock_limit_mhz} MHz, memory at {gpu.memory_clock_mhz} MHz, {gpu.temperature_c} degrees"
        )
    lines.append(f"in no figure: {', '.join(report.excluded)}")
    device = "" if model.device_memory_mib is None else f", {model.device_memory_mib} MiB on the GPU"
    lines.append(
        f"opened in {model.load_s:.2f} s, first call {ms_text(model.first_inference_ms)} ms, "
        f"at most {model.peak_rss_mib:.0f} MiB of memory{device}"
    )
    return lines


def _title(result: BatchResult) -> str:
    """Say what the rows of a batch are times of, and how many frames a second they come to."""
    clock = "from frames in memory to boxes, by the host's clock"
    if result.model.clock == "process":
        clock = "from frames in memory to boxes, CPU time of the process"
    if result.model.clock == "gpu_events":
        clock = f"end to end {clock}; the rows above it are times of the GPU, from runs of their own"
    rate = f"{result.model.throughput_fps:.2f} frames/s"
    if result.baseline is not None:
        rate += f", the published pipeline {result.baseline.throughput_fps:.2f}"
    return f"{count_of(result.batch, 'frame')} a call, {clock}: {rate}"


def _stage_table(result: BatchResult) -> Table:
    model, table = result.model, Table("stage", box=box.SIMPLE_HEAD)
    for heading in (
        f"{_unit(model)} p50" if model.clock == "process" else "p50 ms",
        "p90",
        "p95",
        "p99",
        "mean",
        "std",
        "spread",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, summary in model.stages.items():
        table.add_row(stage_name(name), *_cells(summary))
    if model.gpu_compute is not None:
        table.add_row("GPU compute", *_cells(model.gpu_compute))
    table.add_row("end to end", *_cells(model.end_to_end), style="bold")
    return table


def _unit(measured: Measurement) -> str:
    return "CPU ms" if measured.clock == "process" else "ms"


def _cells(summary: Summary) -> list[str]:
    figures = (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms, summary.mean_ms, summary.std_ms)
    return [*(ms_text(value) for value in figures), f"{summary.spread_percent:.0f} %"]


def _ratio_table(model: Measurement, baseline: Measurement, ratios: Mapping[str, float]) -> Table:
    """Return the two side by side: medians, and the share that each stage has of the whole."""
    table = Table("stage", box=box.SIMPLE_HEAD)
    unit = _unit(model)
    headings = (f"published {unit}", "share", f"here {unit}", "share", *(("times as fast",) if ratios else ()))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in dict.fromkeys((*baseline.stages, *model.stages, END_TO_END)):
        ratio = [f"{ratios[name]:.2f}" if name in ratios else ""] if ratios else []
        style = "bold" if name == END_TO_END else None
        table.add_row(stage_name(name), *_with_share(baseline, name), *_with_share(model, name), *ratio, style=style)
    return table


def _with_share(measured: Measurement, name: str) -> tuple[str, str]:
    summary = measured.end_to_end if name == END_TO_END else measured.stages.get(name)
    if summary is None:
        return "", ""
    # Times of the GPU, from other runs, are no part of the host's.
    share = "" if measured.clock == "gpu_events" else f"{summary.p50_ms / measured.end_to_end.p50_ms:.1%}"
    return ms_text(summary.p50_ms), share

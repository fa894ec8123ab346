"""A report on streams as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.reports.blocks import Line, print_blocks, table_of
from cornernet_bench.reports.words import ms_text, stage_name, thread_text
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from cornernet_bench.measuring.intervals import Ratio
    from cornernet_bench.measuring.timing import Summary
    from cornernet_bench.reports.blocks import Block
    from cornernet_bench.stream.report import Live, Soak, Sources, StreamReport, Throughput

NAMES = {"writing": "drawing, encoding"}


def print_report(console: Console, report: StreamReport) -> None:
    """Print what was measured on what, then each part, then what is doubtful or wrong."""
    print_blocks(console, blocks(report))


def blocks(report: StreamReport) -> Iterator[Block]:
    """Yield what a report consists of."""
    yield from map(Line, _head(report))
    if report.soak is not None:
        yield from _soak(report.soak)
    if report.live is not None:
        yield from _live(report.live)
    if report.sources is not None:
        yield from _sources(report.sources)
    if report.throughput is not None:
        yield from _throughput(report.throughput)
    yield from (Line(f"warning: {line}", "warning") for line in report.warnings)
    yield from (Line(f"failed: {line}", "error") for line in report.failures)
    if report.partial:
        yield Line("interrupted: these are partial results", "warning")


def _head(report: StreamReport) -> list[str]:
    model, machine = report.model, report.machine
    inputs = " ".join(f"{height}x{width}" for height, width in model.input_sizes)
    clock = "" if machine.cpu_mhz is None else f" at {machine.cpu_mhz:.0f} MHz"
    gpu = "" if machine.gpu is None else f"; {machine.gpu.name}, driver {machine.gpu.driver_version}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        f"{model.path}: {model.name} in {model.backend}, {model.precision}, input {inputs}",
        f"video: {report.video}, {_size(report.frame_size)}",
        f"{machine.cpu}, {count_of(machine.cores, 'core')}{clock}{gpu}; threads: {thread_text(machine)}; {versions}",
    ]


def _soak(soak: Soak) -> Iterator[Block]:
    frames = count_of(soak.frames, "frame") + ("" if soak.frames == soak.asked else f" of {soak.asked}")
    yield Line(f"soak: {frames} of {_size(soak.frame_size)} from file to file: {soak.fps:.1f} frames/s", "heading")
    growth = "" if soak.growth_percent is None else f": {soak.growth_percent:+.2f} %"
    yield Line(f"resident memory after each tenth: {' '.join(f'{one:.1f}' for one in soak.memory_mib)} MiB{growth}")
    names = {"threads": "threads", "descriptors": "open files", "objects": "blocks of Python's memory"}
    rows = [[said, str(getattr(soak.before, name)), str(getattr(soak.after, name))] for name, said in names.items()]
    yield table_of(["held", "before", "after"], rows, ["held"])


def _live(live: Live) -> Iterator[Block]:
    yield Line(
        f"live: {count_of(live.made, 'frame')} at {live.source_fps:g} a second, the newest taken: {live.given} given, "
        f"{live.dropped} dropped, {live.fps:.1f} results/s",
        "heading",
    )
    rows = {"lag, read to result": live.lag, "preprocess to boxes": live.detecting, "source late": live.late}
    yield _times(rows)
    yield Line(f"p99 of lag is {live.lag_ratio:.2f} times the median from preprocess to boxes")


def _sources(sources: Sources) -> Iterator[Block]:
    frames, rounds = count_of(sources.frames_each, "frame"), count_of(sources.rounds, "round")
    yield Line(
        f"sources: {sources.count} of {frames} each, {sources.batch} run together at most, by {rounds}", "heading"
    )
    ways = {
        "one source": sources.one,
        f"{sources.count} sources": sources.many,
        f"{sources.dying} of them fail": sources.some_die,
    }
    rows = [[name, *_both(way.cpu, way.wall), f"{way.fps:.1f}"] for name, way in ways.items()]
    yield table_of(["sources", "CPU ms", "spread", "wall ms", "spread", "frames/s"], rows, ["sources"])
    yield Line(
        f"all together {_ratio(sources.of_one)} times as fast as one, {_ratio(sources.of_many)} times while some die; "
        f"halfway the slowest source had {sources.least_share:.0%} of an equal share"
    )


def _throughput(measured: Throughput) -> Iterator[Block]:
    frames, rounds = count_of(measured.frames, "frame"), count_of(measured.rounds, "round")
    yield Line(f"throughput: {frames} read, detected, drawn and encoded; a frame, by {rounds}", "heading")
    yield _stage_table(measured)
    limit = "all cores" if measured.limit == "cores" else stage_name(NAMES.get(measured.limit, measured.limit))
    cores = count_of(measured.cores, "core")
    yield Line(f"the stages allow {measured.ideal_fps:.1f} frames/s on {cores}; what limits them: {limit}")
    yield Line(
        f"loop {measured.loop.fps:.1f} frames/s, stream {measured.stream.fps:.1f}: {_ratio(measured.of_loop)} times "
        f"the loop, {_ratio(measured.of_ideal)} of what the stages allow"
    )
    yield Line(f"detections equal to the loop's: {measured.equal} of {count_of(measured.compared, 'frame')}")


def _stage_table(measured: Throughput) -> Table:
    """Return what a frame takes of processor and time in each stage, then in all, and in loop and stream."""
    rows = [
        [stage_name(NAMES.get(name, name)), *_both(stage.cpu, stage.wall), _whole(stage.whole_ms)]
        for name, stage in measured.stages.items()
    ]
    sums = [sum(getattr(stage, clock).p50_ms for stage in measured.stages.values()) for clock in ("cpu", "wall")]
    rows.append(["all stages, apart", ms_text(sums[0]), "", ms_text(sums[1]), "", ""])
    rows += [
        [name, *_both(way.cpu, way.wall), ""] for name, way in (("loop", measured.loop), ("stream", measured.stream))
    ]
    return table_of(["stage", "CPU ms", "spread", "wall ms", "spread", "not shared out"], rows, ["stage"])


def _both(cpu: Summary, wall: Summary) -> list[str]:
    return [text for one in (cpu, wall) for text in (ms_text(one.p50_ms), f"{one.spread_percent:.0f} %")]


def _whole(milliseconds: float | None) -> str:
    return "" if milliseconds is None else ms_text(milliseconds)


def _times(rows: dict[str, Summary]) -> Table:
    cells = ([name, *map(ms_text, (one.p50_ms, one.p90_ms, one.p99_ms))] for name, one in rows.items())
    return table_of(["time", "p50 ms", "p90", "p99"], cells, ["time"])


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

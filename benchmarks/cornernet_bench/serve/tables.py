"""A measurement of a service as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.reports.blocks import Line, table_of
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_bench.reports.blocks import Block
    from cornernet_bench.serve.measure import ServeReport


def blocks(report: ServeReport) -> Iterator[Block]:
    """Yield what a report consists of."""
    yield Line(report.machine)
    yield Line(
        f"{report.url}: {count_of(report.requests, 'request')} of {count_of(report.pictures, 'picture')} in turn, "
        f"{report.concurrency} at once",
        "heading",
    )
    rows = [[status, str(count)] for status, count in report.statuses.items()]
    rows += [[reason, str(count)] for reason, count in report.failures.items()]
    yield table_of(["response", "requests"], rows, ["response"])
    if report.latency is not None:
        times = report.latency
        figures = [times.p50_ms, times.p90_ms, times.p95_ms, times.p99_ms, times.mean_ms, report.throughput_rps]
        headings = ["p50 ms", "p90", "p95", "p99", "mean", "requests/s"]
        yield table_of(headings, [[f"{one:.1f}" for one in figures]])
    if report.inside is not None:
        inside = report.inside
        front = "" if inside.front_cpu_ms is None else f"of the process that takes requests {inside.front_cpu_ms:.1f}, "
        yield Line(
            f"inside: {inside.batches} batches of {inside.mean_batch:.2f} pictures "
            f"on average; milliseconds a picture: detecting {inside.detect_ms:.1f}, decoding {inside.decode_ms:.1f} "
            f"(waiting included), CPU {front}of this one "
            f"{report.client_cpu_ms:.1f}; {inside.retries} sent again"
        )
    if report.alone is not None:
        alone = report.alone
        yield Line(
            f"the detector alone: {alone.fps:.1f} pictures/s; the service has {alone.ratio:.2f} of that; detections "
            f"equal for {alone.compared - alone.differing} of {count_of(alone.compared, 'picture')}"
        )
    if "401" in report.statuses:
        yield Line("the service asks for its token: name the file that holds it with --token-file", "error")
    if report.failed:
        yield Line(f"failed: {count_of(report.failed, 'request')} of {report.requests}", "error")

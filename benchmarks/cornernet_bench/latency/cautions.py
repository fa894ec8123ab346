"""What makes a latency doubtful, or says where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.measuring.cautions import BY_CPU_TIME, SPREAD_PERCENT, load_doubts
from cornernet_bench.measuring.measurement import MOST_SPREAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cornernet_bench.latency.report import BatchResult
    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.measuring.measurement import Measurement

HOST_SHARE = 0.2  # of a call, spent where the GPU waits
_HELD_BY_GPU = ("network", "upload", "download")  # by the host's clock


def doubts(
    results: Sequence[BatchResult], machine: Machine, baseline_weights: str | None, *, on_gpu: bool
) -> tuple[str, ...]:
    """Return a line for each thing that a reader of the figures should know first.

    Args:
        results: One a batch.
        machine: They were measured on.
        baseline_weights: Where the published pipeline's come from, if it ran.
        on_gpu: Whether the network ran on a GPU.
    """
    lines = [line for result in results for line in _of_result(result, on_gpu=on_gpu)]
    by_clock = not on_gpu and any(result.model.clock == "host" for result in results)
    lines += load_doubts(machine.load_average, machine.cores, BY_CPU_TIME if by_clock else "")
    if baseline_weights is not None and baseline_weights.startswith("random"):
        lines.append(
            f"the baseline has {baseline_weights}: its network takes as long, but what follows gets other maps; name "
            "the checkpoint with --baseline-checkpoint FILE"
        )
    return tuple(lines)


def host_share(measured: Measurement) -> float:
    """Return the part of a call, 0 to 1, in which a GPU that runs the network waits for the host."""
    whole = measured.end_to_end.p50_ms
    stages = measured.stages
    names = stages if measured.clock == "gpu_events" else [name for name in _HELD_BY_GPU if name in stages]
    return max(0.0, 1 - sum(stages[name].p50_ms for name in names) / whole)


def _of_result(result: BatchResult, *, on_gpu: bool) -> Iterator[str]:
    contestants = {"the model": result.model} | ({} if result.baseline is None else {"the baseline": result.baseline})
    advice = f"; {BY_CPU_TIME}" if not on_gpu and result.model.clock == "host" else ""
    for name, one in contestants.items():
        if one.end_to_end.spread_percent > SPREAD_PERCENT:
            yield (
                f"batch {result.batch}: times of {name} spread by {one.end_to_end.spread_percent:.0f} % of their "
                "median: something else uses the machine, or its clocks change; the median may be off by part of "
                f"that{advice}"
            )
    spread = max(one.end_to_end.spread_percent for one in contestants.values())
    if result.baseline is not None and spread > MOST_SPREAD:
        yield f"batch {result.batch}: times spread too far to tell how many times as fast the model is"
    if on_gpu and (share := host_share(result.model)) > HOST_SHARE:
        yield (
            f"batch {result.batch}: the GPU waits for the host in {share:.0%} of a call: a faster network would not "
            "help; more frames a call or more workers would"
        )
    if result.network_batch < result.batch:
        yield (
            f"batch {result.batch}: the network takes {result.network_batch} at a time: export it with "
            f"--batch {result.batch} for more"
        )

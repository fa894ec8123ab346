"""What timed calls of one contestant come to, stage by stage, and when two may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cornernet_bench.measuring.timing import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

END_TO_END, GPU_COMPUTE = "end_to_end", "gpu_compute"
REST = "other"  # what the stages leave of the whole

Clock = Literal["host", "process", "gpu_events"]
MOST_SPREAD = 50.0  # percent; medians of times that spread further say nothing about which of two is faster


@dataclass(frozen=True, slots=True)
class Measurement:
    """Calls of one contestant with one number of frames.

    Attributes:
        clock: ``host``: its stages are parts of the calls that ``end_to_end`` is of. ``process``: the same, in CPU time
            of the process. ``gpu_events``: they are times of the GPU, in runs of their own.
        end_to_end: From frames in memory to boxes, by the host's clock, or in CPU time.
        gpu_compute: All that the GPU computes, copies left out; None by the host's clock.
        stages: By name, in the order of the work; REST is what they leave of the whole.
        throughput_fps: Frames a second, one call after the other.
    """

    clock: Clock
    end_to_end: Summary
    gpu_compute: Summary | None
    stages: dict[str, Summary]
    throughput_fps: float


def measurement(samples: Sequence[Mapping[str, float]], batch: int, clock: Clock = "host") -> Measurement:
    """Return what calls of one contestant come to.

    Args:
        samples: Of each call, milliseconds by stage, and those of END_TO_END and GPU_COMPUTE; at least one.
        batch: Frames a call.
        clock: Of samples without GPU_COMPUTE.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    end_to_end = summarise(columns[END_TO_END])
    gpu = columns.get(GPU_COMPUTE)
    return Measurement(
        clock=clock if gpu is None else "gpu_events",
        end_to_end=end_to_end,
        gpu_compute=None if gpu is None else summarise(gpu),
        stages={name: summarise(times) for name, times in columns.items() if name not in (END_TO_END, GPU_COMPUTE)},
        throughput_fps=1000 * batch / end_to_end.mean_ms,
    )


def comparable(*both: Summary) -> bool:
    """Say whether medians of these times tell which is faster: none spreads by more than ``MOST_SPREAD``."""
    return max(one.spread_percent for one in both) <= MOST_SPREAD

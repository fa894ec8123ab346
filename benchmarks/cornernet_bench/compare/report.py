"""What a comparison comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_bench.measuring.intervals import Ratio
from cornernet_bench.measuring.measurement import END_TO_END, GPU_COMPUTE, REST, comparable
from cornernet_bench.measuring.timing import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cornernet_bench.compare.contestant import Contestant
    from cornernet_bench.measuring.intervals import Difference
    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.measuring.measurement import Measurement
    from cornernet_bench.models.opening import Opened


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What the detections on the pictures seen are worth.

    Attributes:
        metrics: COCO's AP by name (``ap``, ``ap50``, ...), points of 100; NaN where there is no such object.
        low: Of the interval that holds 95 % of the AP of sets made of the same pictures drawn anew.
        high: Of the same.
    """

    metrics: dict[str, float]
    low: float
    high: float


def speeds(first: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> dict[str, Ratio]:
    """Return how many times as fast the other is, by stage and END_TO_END.

    Args:
        first: Milliseconds of each timed call by stage, by one clock or, with GPU_COMPUTE among them, by two.
        other: Of the other's calls.

    Returns:
        Ratios of what both have; of END_TO_END alone if only one of the two tells stages by a GPU's clock. As in
        ``latency.report.ratios_of``: of no stage whose times spread too far, and none at all if those end to end do.
    """
    if not (first and other):
        return {}
    one_clock = (GPU_COMPUTE in first[0]) == (GPU_COMPUTE in other[0])
    names = [name for name in first[0] if name in other[0] and name not in (REST, GPU_COMPUTE)]
    columns = {
        name: [[sample[name] for sample in samples] for samples in (first, other)]
        for name in (names if one_clock else [END_TO_END])
    }
    known = {
        name: Ratio.of(*times)
        for name, times in columns.items()
        if min(map(min, times)) > 0 and comparable(*map(summarise, times))
    }
    return known if END_TO_END in known else {}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Detections of a model beside those of the first on the same pictures (``AGREE`` says what matches).

    Attributes:
        reference: Detections of the first.
        matched: Those of them that have a counterpart.
        extra: Detections of this model that have none.
    """

    reference: int
    matched: int
    extra: int

    @property
    def percent(self) -> float:
        """Matched ones of all that either found; 100 where neither found any."""
        found = self.reference + self.extra
        return 100 * self.matched / found if found else 100.0


@dataclass(frozen=True, slots=True)
class MapCheck:
    """The six maps of a model beside those of the first.

    Attributes:
        pictures: That were looked at.
        errors: Largest difference of each output over the largest value of the first's.
        tolerance: That the two precisions allow.
    """

    pictures: int
    errors: dict[str, float]
    tolerance: float

    @property
    def differing(self) -> tuple[str, ...]:
        """Outputs whose error exceeds the tolerance."""
        return tuple(name for name, error in self.errors.items() if not error <= self.tolerance)


@dataclass(frozen=True, slots=True)
class Against:
    """A model beside the first one. None is what was not measured, or says nothing of these two.

    Attributes:
        speed: End to end; None where times spread too far to tell.
        stage_speeds: Of each stage that both have, by its name, but of those whose times spread too far; none where
            those end to end do, or only one tells stages by a GPU's clock.
        ap: AP of this model less that of the first, the same draws for both.
        agreement: Of detections.
        maps: Of the network's outputs; None where the two see pictures at different sizes, or know other classes.
        cause: Where the two differ: a repair of the oracle (``oracle_repairs.REPAIRS``), or AFTER_NETWORK; None where
            they do not, or it cannot be told.
        findings: What differs, in words.
    """

    speed: Ratio | None
    stage_speeds: dict[str, Ratio]
    ap: Difference | None
    agreement: Agreement | None
    maps: MapCheck | None
    cause: str | None
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One contestant. None is what an interrupt left out.

    Attributes:
        number: Its place on the command line, from 1.
        contestant: As typed.
        opened: The model as it opens in a process of its own: what it is, time to open it, memory.
        disk_bytes: Of the files that its backend reads.
        accuracy: Of its detections.
        latency: Of the same detector, one frame a call.
        against: The first one; None for itself.
        best: Whether no other is both at least as accurate and at least as fast (on the Pareto front), or it is equal
            to such a one but for noise; never where it is the only one.
    """

    number: int
    contestant: Contestant
    opened: Opened
    disk_bytes: int
    accuracy: Accuracy | None
    latency: Measurement | None
    against: Against | None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A contestant that cannot be compared, its place on the command line from 1, and why."""

    number: int
    contestant: Contestant
    error: str

    @property
    def text(self) -> str:
        """All of it in a line."""
        named = self.error.startswith(str(self.contestant.path))
        return f"{self.number}: {'' if named else f'{self.contestant.text}: '}{self.error}"


@dataclass(frozen=True, slots=True)
class CompareReport:
    """All of it.

    Attributes:
        partial: Whether it was interrupted: some figures are missing, or of fewer pictures or calls than asked for.
        machine: On what.
        annotations: COCO instances file.
        images: Folder of its pictures.
        listed: Pictures in the file.
        pictures: That all contestants have seen; AP and agreement are of these.
        objects: To be found on them.
        frames: Pictures that latency was measured on.
        iterations: Timed calls of each that were asked for.
        warm_up: Calls before that.
        cpu_time: Whether times are the process's CPU time, which is no latency.
        results: Contestants that ran, the first of which the others are held against.
        failures: The others.
        notes: What looks wrong with the data set.
        warnings: What makes the figures doubtful.
    """

    partial: bool
    machine: Machine
    annotations: str
    images: str
    listed: int
    pictures: int
    objects: int
    frames: int
    iterations: int
    warm_up: int
    cpu_time: bool
    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

"""What two models differ by without a fault: their precisions, how they look at a picture, which network they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_bench.model_names import PUBLISHED
from cornernet_bench.models.runs import runs_on_gpu
from cornernet_bench.oracle.repairs import LEAST_LOSS
from cornernet_export.verification.matching import FP16, FP32, INT8

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cornernet_bench.compare.entrant import Entrant
    from cornernet_bench.measuring.intervals import Difference


@dataclass(frozen=True, slots=True)
class Expected:
    """What a precision may cost.

    Attributes:
        name: Of the precision, for people.
        output: Error of an output, relative to the largest value.
        ap: Points of AP.
    """

    name: str
    output: float
    ap: float

    def exceeded(self, difference: Difference | None) -> bool:
        """Say whether more AP is lost than that, and more than the noise."""
        return difference is not None and difference.points <= -self.ap and difference.high < 0


PIPELINE = "pipeline"  # an option of ``views``: one of the two takes the published steps
PRECISIONS = {
    "fp32": Expected("fp32", FP32.output, LEAST_LOSS),
    "fp16": Expected("fp16", FP16.output, 0.2),
    "tf32": Expected("tf32 of a GPU", FP16.output, 0.2),  # its mantissa is that of float16
    "bf16": Expected("bf16", 5e-2, 0.2),  # eight bits a value, over all layers
    "int8": Expected("int8", INT8.output, 0.5),
}


def expected(first: Entrant, other: Entrant) -> Expected:
    """Return what the precisions of the two may cost: the widest of them."""
    names = _precisions(first) | _precisions(other)
    return max((PRECISIONS[name] for name in sorted(names)), key=lambda one: one.output)


def views(first: Entrant, other: Entrant) -> tuple[str, ...]:
    """Return the options by which the two look at a picture in different ways."""
    one, two = first.detector, other.detector
    pairs = {
        "flip": (one.flip, two.flip),
        "scales": (one.scales, two.scales),
        "size": (first.contestant.size, other.contestant.size),
        PIPELINE: (one.backend.name == PUBLISHED, two.backend.name == PUBLISHED),
    }
    return _differing(pairs.items())


def network(first: Entrant, other: Entrant) -> tuple[str, ...]:
    """Return what makes the other's network another one, whatever its weights; nothing where it is the same."""
    pairs = {
        "architecture": (first.detector.spec.name, other.detector.spec.name),
        "stacks": (first.contestant.stacks, other.contestant.stacks),
    }
    return _differing(pairs.items())


def _precisions(entrant: Entrant) -> set[str]:
    """Return that of the model and that of the backend, which is another in ``openvino-bf16``."""
    names = {entrant.opened.precision, entrant.detector.spec.precision}
    return names | {"tf32"} if runs_on_gpu(entrant.detector) and names == {"fp32"} else names


def _differing(pairs: Iterable[tuple[str, tuple[object, object]]]) -> tuple[str, ...]:
    return tuple(name for name, (one, two) in pairs if one != two)

"""Models side by side on the same pictures: accuracy, latency, memory, and where those that should be alike differ.

Each is opened once, and all but its memory is measured of that detector: AP and latency are of the same artefact.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.coco.dataset import category_ids_of, read_coco, spread
from cornernet_bench.coco.judge import judge
from cornernet_bench.compare.alone import open_alone
from cornernet_bench.compare.contestant import check_size, disk_bytes
from cornernet_bench.compare.entrant import Entrant
from cornernet_bench.compare.findings import FirstFailedError, beside, explain
from cornernet_bench.compare.front import stars
from cornernet_bench.compare.report import CompareReport, Failure
from cornernet_bench.measuring.cautions import BY_CPU_TIME, SPREAD_PERCENT, load_doubts
from cornernet_bench.measuring.intervals import FEW, RESAMPLES
from cornernet_bench.measuring.machine import describe_machine, load_average, thread_limit
from cornernet_bench.measuring.timing import take_turns
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.runs import model_run, runs_on_gpu
from cornernet_runtime.errors import CornerNetError, SizeError
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.processing.geometry import is_too_large
from cornernet_runtime.wording import count_of, scales_note, too_large_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cornernet_bench.coco.dataset import CocoSet
    from cornernet_bench.compare.contestant import Contestant
    from cornernet_bench.compare.request import CompareRequest
    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.measuring.measurement import Clock
    from cornernet_bench.models.runs import Frame

    OnFailure = Callable[[str], None]  # a line that says what cannot be measured
    OnProgress = Callable[[str, int, int], None]  # what is done, how much of it, of how much

FRAMES = 8  # pictures that latency is measured on
ALONE = "only one model is left: there is nothing to hold it against"
FEW_ROUNDS = 10  # below which times say little


def compare(
    request: CompareRequest, on_progress: OnProgress = lambda *_: None, on_failure: OnFailure = lambda _: None
) -> CompareReport:
    """Measure all contestants; one that cannot be measured is named with its error, and the others go on.

    An interrupt ends the measurement and keeps what there is.

    Raises:
        SizeError: A contestant's size or scales are none that its model takes.
        FrameError: The annotations or a picture cannot be read, or a picture is missing.
        CornerNetError: No contestant can be measured, or CPU time is asked for with several threads.
        KeyboardInterrupt: It came before anything was measured.
    """
    if request.cpu_time and request.threads != 1:
        raise CornerNetError("--cpu-time adds up all threads: add --threads 1")
    load = load_average()
    data = read_coco(request.annotations, request.images)
    category_ids_of(data, (), request.annotations, request.images)  # no picture is missing
    torch = any(contestant.path.suffix in CHECKPOINTS for contestant in request.contestants)
    with thread_limit(request.threads, torch=torch), contextlib.ExitStack() as stack:
        field = _Field(request, data, on_progress, on_failure)
        partial = False
        try:
            field.open(stack)
            field.race()
            field.detect()
        except KeyboardInterrupt:
            partial = True
        if not field.measured:
            if partial:
                raise KeyboardInterrupt
            raise CornerNetError(f"nothing to compare: {field.failures[0].error}")
        try:
            field.judge()
        except KeyboardInterrupt:
            partial = True
        try:
            field.hold_against_the_first(explained=not partial)
        except KeyboardInterrupt:
            partial = True
        return field.report(load, partial=partial)


class _Field:
    """All contestants, as they stand; each step drops those that fail."""

    def __init__(self, request: CompareRequest, data: CocoSet, on_progress: OnProgress, on_failure: OnFailure) -> None:
        self._request, self._data, self._say, self._tell = request, data, on_progress, on_failure
        self._listed = data.truth.getImgIds()
        frames = [read_picture(data.paths[image_id]) for image_id in spread(self._listed, FRAMES)]
        self._frames: list[Frame] = sorted(frames, key=lambda frame: -frame.size)  # the largest tells the memory
        self._seen: list[Any] = []
        self._entrants: list[Entrant] = []
        self.failures: list[Failure] = []

    @property
    def measured(self) -> bool:
        """Whether there is anything to report."""
        return bool(self._entrants) and (bool(self._seen) or all(one.samples for one in self._entrants))

    def open(self, stack: contextlib.ExitStack) -> None:
        """Open each contestant alone, then here, where ``stack`` closes it."""
        contestants = self._request.contestants
        for contestant in contestants:
            check_size(contestant)
        for number, contestant in enumerate(contestants, 1):
            self._say(f"opening {contestant.name}", number - 1, len(contestants))
            try:
                self._entrants.append(self._opened(number, contestant, stack))
            except SizeError as error:  # of what was typed
                raise SizeError(f"{contestant.text}: {error}") from error
            except CornerNetError as error:
                self._note_failure(number, contestant, error)
        if len(self._entrants) == 1:
            self._tell(ALONE)

    def _opened(self, number: int, contestant: Contestant, stack: contextlib.ExitStack) -> Entrant:
        subject = contestant.subject(self._request.threads)
        opened = open_alone(subject, self._frames)
        detector = stack.enter_context(open_detector(subject))
        if self._request.cpu_time and runs_on_gpu(detector):
            raise CornerNetError("--cpu-time knows no GPU: leave it away, or run this model on the CPU")
        clock: Clock = "process" if self._request.cpu_time else "host"
        ids = category_ids_of(self._data, detector.class_names, self._request.annotations, self._request.images)
        size = disk_bytes(contestant.path, detector.backend.name)
        return Entrant(number, contestant, detector, opened, size, ids, clock)

    def race(self) -> None:
        """Time all in turns, so that whatever disturbs the machine disturbs all of them."""
        now = time.process_time if self._request.cpu_time else time.perf_counter
        runs = [(entrant, model_run(entrant.detector, now)) for entrant in self._entrants]
        for what, rounds in (("warming up", self._request.warm_up), ("timing", self._request.iterations)):
            for number, (entrant, run) in take_turns(runs, rounds):
                self._say(what, number, rounds)
                if entrant in self._entrants:
                    with self._failing(entrant):
                        sample = run([self._frames[number % len(self._frames)]])
                        entrant.samples += [sample] if what == "timing" else []

    def detect(self) -> None:
        """Let each look at every picture, all at one before the next, so that an interrupt leaves the same ones."""
        for number, image_id in enumerate(self._listed):
            self._say("detecting", number, len(self._listed))
            frame = read_picture(self._data.paths[image_id])
            found = []
            for entrant in list(self._entrants):
                with self._failing(entrant):
                    found.append((entrant, entrant.detector(frame)))
            for entrant, detections in found:
                entrant.found.append(detections)
                entrant.scaled_down += is_too_large(frame.shape[:2], entrant.detector.spec, entrant.detector.scales)
            self._seen.append(image_id)

    def judge(self) -> None:
        """Let pycocotools judge what each has found on the pictures seen."""
        count = len(self._seen)
        if not count:
            return
        weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        for number, entrant in enumerate(self._entrants):
            self._say("judging", number, len(self._entrants))
            verdict = judge(self._data.truth, self._seen, entrant.found, entrant.category_ids, by_area=True)
            entrant.metrics, entrant.resampled = verdict.metrics, verdict.resampled(weights)

    def hold_against_the_first(self, *, explained: bool) -> None:
        """Say how each of the others differs from the first, and where, if ``explained``."""
        first, *others = self._entrants
        for entrant in others:
            entrant.against = beside(first, entrant)
        for entrant in others if explained else ():
            self._say(f"where {entrant.contestant.name} differs", 0, 0)
            try:
                with self._failing(entrant):
                    entrant.against = explain(first, entrant, self._request, self._frames, self._track)
            except FirstFailedError as error:  # what was measured of it stands
                self._note_failure(first.number, first.contestant, error.error)
                return

    def report(self, load: float, *, partial: bool) -> CompareReport:
        """Return all of it; ``load`` is from before the measurement."""
        backends = {entrant.detector.backend.name for entrant in self._entrants}
        machine = describe_machine(load, self._request.threads, backends)
        objects = self._data.truth.imgToAnns
        return CompareReport(
            partial=partial,
            machine=machine,
            annotations=str(self._request.annotations),
            images=str(self._request.images),
            listed=len(self._listed),
            pictures=len(self._seen),
            objects=sum(not row["iscrowd"] for image_id in self._seen for row in objects[image_id]),
            frames=min(len(self._frames), max(len(entrant.samples) for entrant in self._entrants)),
            iterations=self._request.iterations,
            warm_up=self._request.warm_up,
            cpu_time=self._request.cpu_time,
            results=tuple(
                entrant.result(best=best) for entrant, best in zip(self._entrants, stars(self._entrants), strict=True)
            ),
            failures=tuple(sorted(self.failures, key=lambda failure: failure.number)),
            notes=self._data.notes,
            warnings=tuple(self._doubts(machine)),
        )

    def _doubts(self, machine: Machine) -> Iterator[str]:
        by_clock = not self._request.cpu_time and not any(runs_on_gpu(one.detector) for one in self._entrants)
        advice = f"; {BY_CPU_TIME}" if by_clock else ""
        yield from load_doubts(machine.load_average, machine.cores, BY_CPU_TIME if by_clock else "")
        if len(self._entrants) == 1:
            yield ALONE
        elif self._entrants[0].number != 1:
            yield f"the first model failed; the others are held against {self._entrants[0].contestant.text}"
        rounds = min(len(entrant.samples) for entrant in self._entrants)
        if rounds < FEW_ROUNDS:
            yield f"{count_of(rounds, 'timed round')} are few: times and speeds say little"
        if 0 < len(self._seen) < FEW:
            yield f"{count_of(len(self._seen), 'picture')} are few: intervals of AP say little"
        for entrant in self._entrants:
            name, detector = entrant.contestant.text, entrant.detector
            yield from (f"{name}: {line}{advice}" for line in _of_times(entrant))
            for note in (
                scales_note(entrant.contestant.scales, detector.scales),
                too_large_note(entrant.scaled_down, detector.spec.largest_size),
            ):
                if note:
                    yield f"{name}: {note}"

    def _track(self, items: Sequence[Any], what: str) -> Iterable[Any]:
        for number, item in enumerate(items):
            self._say(f"differences: {what}", number, len(items))
            yield item

    @contextlib.contextmanager
    def _failing(self, entrant: Entrant) -> Iterator[None]:
        """Drop the entrant if what runs inside fails."""
        try:
            yield
        except CornerNetError as error:
            self._entrants = [other for other in self._entrants if other is not entrant]
            self._note_failure(entrant.number, entrant.contestant, error)

    def _note_failure(self, number: int, contestant: Contestant, error: CornerNetError) -> None:
        failure = Failure(number, contestant, str(error))
        self.failures.append(failure)
        self._tell(f"failed: {failure.text}")


def _of_times(entrant: Entrant) -> Iterator[str]:
    spread_percent = 0.0 if entrant.latency is None else entrant.latency.end_to_end.spread_percent
    if spread_percent > SPREAD_PERCENT:
        yield f"times spread by {spread_percent:.0f} % of their median; something else uses the machine"
    if entrant.samples and entrant.against is not None and entrant.against.speed is None:
        yield "times spread too far to tell how many times as fast it is"

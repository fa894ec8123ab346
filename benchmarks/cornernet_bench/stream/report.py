"""What a measurement of streams is asked for, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cornernet_bench.measuring.intervals import Ratio
    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.measuring.timing import Summary
    from cornernet_bench.models.opening import Opened
    from cornernet_bench.models.subject import Subject
    from cornernet_runtime.bundle.spec import Size

    OnProgress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What to measure, and how.

    Attributes:
        subject: The model, and how it runs in loop and stream.
        video: File whose first frames are the clip; None draws one.
        workers: As for ``Detector.stream``.
        batch: As for ``Detector.stream``.
        rounds: In which loop, stream and stages take turns; 0 leaves throughput out.
        clip_frames: Frames of the clip that are used.
        frame_size: Height and width of a drawn clip.
        soak_frames: Frames of the soak; 0 leaves it out.
        live_fps: Rate of a live source; None leaves it out.
        live_frames: Frames that it gives.
        sources: That go into one model at once; 0 leaves that out.
        source_frames: Frames that each gives, in every round.
        folder: Where clips are written, each in a folder that is removed; None takes the system's.
    """

    subject: Subject
    video: Path | None = None
    workers: int | None = None
    batch: int | None = None
    rounds: int = 5
    clip_frames: int = 120
    frame_size: Size = (720, 1280)
    soak_frames: int = 500
    live_fps: float | None = None
    live_frames: int = 600
    sources: int = 0
    source_frames: int = 40
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the work, alone in the process, by round; a frame on average.

    Attributes:
        cpu: Time of the processor in all threads: what the step takes on one core.
        wall: Time that passes.
        whole_ms: Median of what of it one thread has to do, frame after frame, so that more cores do not shorten it:
            CPU time of the thread that reads or writes, or the time that passes at a GPU. None where frames are shared
            out among threads.
    """

    cpu: Summary
    wall: Summary
    whole_ms: float | None


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the whole clip, from file to file, by round; a frame on average.

    Attributes:
        cpu: Time of the processor in all threads.
        wall: Time that passes.
        fps: Frames a second, by the median of ``wall``.
    """

    cpu: Summary
    wall: Summary
    fps: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Reading, detecting, drawing and encoding, one after the other and as a stream.

    Attributes:
        rounds: That are complete.
        frames: Of the clip, which loop, stream and ``reading`` go through in a round.
        held: Frames in memory, which the other stages go through.
        cores: Among which the work is shared at best.
        stages: Reading; preprocess, network (of one thread), decode, soft_nms and other, or detecting where a GPU does
            them; writing, which is drawing and encoding.
        loop: One frame after the other.
        stream: By ``Detector.stream``.
        ideal_fps: What the stages allow on the cores: the longest part that cannot be shared out, or the sum over the
            cores, whichever is longer; by medians.
        limit: The stage that is this part, or ``cores``.
        of_ideal: Ideal time of a frame through the stream's, by round: 1 is the ideal.
        of_loop: The loop's time of a frame through the stream's, by round.
        compared: Frames whose detections were compared with the loop's, over all rounds.
        equal: Of them, those that have the same.
        tolerance_px: By which boxes may differ: 0, unless frames are run together, which adds up in another order.
    """

    rounds: int
    frames: int
    held: int
    cores: int
    stages: dict[str, Stage]
    loop: Way
    stream: Way
    ideal_fps: float
    limit: str
    of_ideal: Ratio
    of_loop: Ratio
    compared: int
    equal: int
    tolerance_px: float


@dataclass(frozen=True, slots=True)
class Live:
    """A source whose frames come by a clock, and only the newest is taken.

    Attributes:
        source_fps: Of the clock.
        made: Frames that the source gave.
        read: Frames that the stream counted.
        given: Of them, those with a result.
        dropped: Of them, those given up for newer ones.
        in_order: Whether no frame came twice or after a later one.
        fps: Results a second.
        lag: From the frame's arrival to its result.
        detecting: From the begin of preprocessing to the boxes.
        lag_ratio: p99 of lag through the median of detecting.
        late: How much later than by its clock the source gave its frames: not the stream's doing.
    """

    source_fps: float
    made: int
    read: int
    given: int
    dropped: int
    in_order: bool
    fps: float
    lag: Summary
    detecting: Summary
    lag_ratio: float
    late: Summary


@dataclass(frozen=True, slots=True)
class Sources:
    """Many sources into one model, by round, from memory and with nothing drawn or written.

    Attributes:
        rounds: That are complete.
        count: Sources.
        frames_each: Frames that each gives in a round.
        batch: Frames that are run together, at most.
        one: One source with as many frames as all, by ``Detector.stream``.
        many: All of them, by ``MultiStream``.
        some_die: The same, while some fail halfway.
        of_one: One source's time of a frame through that of many, by round: 1 is as fast as one.
        of_many: The time of a frame of many through that while some die, by round: 1 is as fast as if none did.
        dying: Sources that fail, the first ones.
        least_share: Results of the source that has the fewest when half of all are given, through an equal share; the
            least of all rounds.
        given: Results by source, over all rounds.
        given_as_some_die: The same, while some fail.
        in_order: Whether no frame came twice or after a later one of its source.
    """

    rounds: int
    count: int
    frames_each: int
    batch: int
    one: Way
    many: Way
    some_die: Way
    of_one: Ratio
    of_many: Ratio
    dying: int
    least_share: float
    given: dict[str, int]
    given_as_some_die: dict[str, int]
    in_order: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at a moment.

    Attributes:
        threads: Of the process, those of libraries included.
        descriptors: Open files.
        objects: Blocks of memory that Python has given out, after a collection.
    """

    threads: int
    descriptors: int
    objects: int


@dataclass(frozen=True, slots=True)
class Soak:
    """Many small frames from file to file in one stream.

    Attributes:
        asked: Frames that were asked for.
        frames: That went through.
        frame_size: Height and width.
        fps: Frames a second.
        memory_mib: Resident, after each tenth of the frames; fewer after an interrupt.
        growth_percent: From the first to the last of them; None before the second.
        before: What was held before, with the model open.
        after: What is held once the stream and its file are closed.
    """

    asked: int
    frames: int
    frame_size: Size
    fps: float
    memory_mib: tuple[float, ...]
    growth_percent: float | None
    before: Held
    after: Held


@dataclass(frozen=True, slots=True)
class StreamReport:
    """All of it; None is what was not asked for, or not reached.

    Attributes:
        partial: Whether it was interrupted.
        model: What was measured.
        machine: On what.
        video: Whose frames throughput and live source are of: ``drawn``, or the path.
        frame_size: Height and width of the first.
        throughput: From file to file.
        live: A live source.
        sources: Many sources.
        soak: Many frames.
        failures: What is wrong with the stream, for people.
        warnings: What makes the figures doubtful, for people.
    """

    partial: bool
    model: Opened
    machine: Machine
    video: str
    frame_size: Size
    throughput: Throughput | None
    live: Live | None
    sources: Sources | None
    soak: Soak | None
    failures: tuple[str, ...]
    warnings: tuple[str, ...]

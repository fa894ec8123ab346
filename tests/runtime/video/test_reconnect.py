"""Live sources that are connected again: times, states, waits and ends, without any network."""

from __future__ import annotations

import logging
import threading
import time
from fractions import Fraction
from functools import partial
from itertools import pairwise

import cv2
import numpy as np
import pytest
from cases.video_clips import moving_shapes, write_clip

from cornernet_runtime.errors import FrameError, VideoError
from cornernet_runtime.video import reconnect
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.reconnect import LastingError, Reconnecting, Reconnection
from cornernet_runtime.video.sources import Camera, Part

SOON = 5.0  # seconds; what is to happen at once takes no longer on a machine that is busy
TICK = Fraction(1, 100)
IMAGE = np.zeros((2, 2, 3), np.uint8)
QUICK = {"first_wait_s": 0.01, "longest_wait_s": 0.02}


def frames(*ticks, time_base=TICK):
    return [VideoFrame(IMAGE, index, tick, time_base, "elsewhere") for index, tick in enumerate(ticks)]


class Silence:
    """What a connection waits for, until it is closed."""

    def __init__(self):
        self.over = threading.Event()

    def __iter__(self):
        self.over.wait(60)
        return iter(())


class Connection:
    """A source of steps: frames, errors that are raised, and silences."""

    live, name = True, "it"

    def __init__(self, *steps):
        self.steps, self.problems, self.closed = steps, [], False

    def __iter__(self):
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield from step if isinstance(step, list | Silence) else [step]

    def close(self):
        self.closed = True


class Plugged:
    """Connects to one connection after the other, and is silent after the last one.

    An error among them is raised instead of connecting.
    """

    def __init__(self, *connections):
        self.connections, self.made, self.silence = list(connections), [], Silence()

    def __call__(self):
        given = self.connections.pop(0) if self.connections else Connection(self.silence)
        if isinstance(given, Exception):
            raise given
        self.made.append(given)
        return given


@pytest.fixture
def plug():
    """Return a function that makes a source of connections; what is silent is ended with the test."""
    before, made = threading.active_count(), []

    def make(*connections, **plan):
        plugged = Plugged(*connections)
        source = Reconnecting(plugged, "it", Reconnection(**{**QUICK, **plan}))
        made.append((plugged, source))
        return plugged, source

    yield make
    for plugged, source in made:
        for connection in [*plugged.made, Connection(plugged.silence)]:
            for step in connection.steps:
                if isinstance(step, Silence):
                    step.over.set()
        source.close()
    deadline = time.perf_counter() + SOON
    while threading.active_count() > before and time.perf_counter() < deadline:
        time.sleep(0.001)
    assert threading.active_count() == before


@pytest.fixture
def slowly(monkeypatch):
    """Let a clock be the same however long the machine takes from one connection to the next."""
    monkeypatch.setattr(reconnect, "SAME_CLOCK", 3600)


def first(source, count):
    """Return so many frames of a source, and close it."""
    given = []
    for frame in source:
        given.append(frame)
        if len(given) == count:
            break
    return given


def test_a_connection_that_ends_is_followed_by_the_next():
    made = []

    def connect():
        made.append(Connection(frames(*(10_000 * len(made) + tick for tick in (0, 4, 8)))))
        return made[-1]

    source = Reconnecting(connect, "it", Reconnection(**QUICK))
    given = first(source, 7)
    assert [frame.index for frame in given] == list(range(7))
    assert {frame.source for frame in given} == {"it"}
    assert [connection.closed for connection in made] == [True] * 3
    assert (source.state, source.connections, source.stalls) == ("live", 3, 0)
    assert source.reason == "the stream ended"


def test_times_of_one_connection_are_its_own_to_the_tick(plug):
    _, source = plug(Connection(frames(700, 701, 705, 1200)))
    assert [(frame.ticks, frame.time_base) for frame in first(source, 4)] == [
        (700, TICK),
        (701, TICK),
        (705, TICK),
        (1200, TICK),
    ]


def test_after_a_gap_a_clock_that_began_anew_is_moved_by_the_time_that_passed(plug):
    _, source = plug(Connection(frames(700, 704)), Connection(frames(0, 4, 8)), first_wait_s=0.2)
    begin = time.perf_counter()
    ticks = [frame.ticks for frame in first(source, 5)]
    passed = (time.perf_counter() - begin) / TICK
    assert ticks[:2] == [700, 704]
    assert 10 - 1 <= ticks[2] - 704 <= passed + 1, "the wait is at least half of what the plan says"
    assert [tick - ticks[2] for tick in ticks[2:]] == [0, 4, 8]


@pytest.mark.usefixtures("slowly")
def test_after_a_gap_a_clock_that_went_on_is_kept_and_what_was_given_before_is_left_out(plug):
    _, source = plug(Connection(frames(700, 704)), Connection(frames(696, 700, 704, 708, 712)))
    given = first(source, 4)
    assert [frame.ticks for frame in given] == [700, 704, 708, 712]
    assert [frame.index for frame in given] == [0, 1, 2, 3]


@pytest.mark.usefixtures("slowly")
def test_times_keep_their_unit_when_the_next_connection_has_another(plug):
    other = frames(7040, 7080, time_base=Fraction(1, 1000))
    _, source = plug(Connection(frames(700)), Connection(other))
    assert [(frame.ticks, frame.time_base) for frame in first(source, 3)] == [(700, TICK), (704, TICK), (708, TICK)]


@pytest.mark.parametrize("jump", [-100_000, 100_000])
def test_a_clock_that_jumps_within_a_connection_is_moved(plug, jump):
    _, source = plug(Connection(frames(700, 704, 708 + jump, 712 + jump, 716 + jump)))
    ticks = [frame.ticks for frame in first(source, 5)]
    assert ticks[:2] == [700, 704]
    assert 704 < ticks[2] < 704 + SOON / TICK
    assert [tick - ticks[2] for tick in ticks[2:]] == [0, 4, 8]


def test_a_time_that_comes_twice_or_too_late_is_left_out(plug):
    _, source = plug(Connection(frames(700, 704, 704, 702, 708)))
    assert [frame.ticks for frame in first(source, 3)] == [700, 704, 708]


def test_a_clock_that_stands_still_is_moved_after_a_second():
    timeline = reconnect._Timeline()
    (frame,) = frames(700)
    assert [timeline.place(frame, arrived) for arrived in (0, 0.5, 0.9, 1.5, 2, 3)] == [
        700,
        None,
        None,
        850,
        None,
        1000,
    ]


def test_what_a_connection_may_repeat_is_left_out_after_a_gap_alone():
    timeline = reconnect._Timeline()
    place = partial(timeline.place, repeats_s=30.0)
    of_before, of_after = frames(700, 1700), frames(800, 1700, 1704, 904)
    assert [place(frame, at) for frame, at in zip(of_before, (0, 1.5), strict=True)] == [700, 1700]
    timeline.interrupt()
    given = [place(frame, at) for frame, at in zip(of_after, (4, 4.5, 5, 6), strict=True)]
    assert given == [None, None, 1704, 1804], "the last is a jump back within the connection"


def test_a_clock_that_began_anew_is_moved_once_nothing_can_be_repeated_any_more():
    timeline = reconnect._Timeline()
    before, soon, late = frames(2000, 0, 3000)
    timeline.place(before, 0)
    timeline.interrupt()
    assert timeline.place(soon, 10, 30.0) is None
    assert timeline.place(soon, 31, 30.0) == 2000 + 3100
    assert timeline.place(late, 61, 30.0) == 2000 + 6100


def test_a_silence_is_a_stall_and_ends_the_connection(plug):
    silence = Silence()
    _, source = plug(Connection(frames(1), silence), Connection(frames(2)), silence_s=0.2)
    states = []
    for frame in source:
        states.append(source.state)
        if frame.index == 1:
            break
        threading.Timer(0.5, silence.over.set).start()
    assert states == ["live", "live"]
    assert (source.connections, source.stalls) == (2, 1)
    assert source.reason.startswith("no frame for 0.")


def test_a_connection_without_a_first_frame_is_cut_too(plug, caplog):
    silence = Silence()
    _, source = plug(Connection(silence), Connection(frames(2)), connect_s=0.1)
    threading.Timer(0.5, silence.over.set).start()
    assert len(first(source, 1)) == 1
    assert (source.connections, source.stalls) == (1, 0)
    assert "it: lost: no frame for 0." in caplog.text


def test_errors_of_connections_are_waited_out_and_told_once(plug, caplog):
    caplog.set_level(logging.INFO, "cornernet_runtime.video")
    refused = [VideoError("it: refused")] * 5
    _, source = plug(*refused, Connection(frames(1), VideoError("it: torn off")), *refused, Connection(frames(2)))
    assert len(first(source, 2)) == 2
    again = "; it is connected again as soon as it answers"
    assert [record.getMessage() for record in caplog.records] == [
        f"it: lost: refused{again}",
        "it: live",
        f"it: lost: torn off{again}",
        "it: live",
    ]
    assert source.reason == "refused"


def test_what_lasts_is_raised_at_the_first_connection_and_waited_out_later(plug):
    _, source = plug(LastingError("it: wrong address"))
    with pytest.raises(VideoError, match="it: wrong address"):
        first(source, 1)
    _, source = plug(Connection(frames(1)), LastingError("it: gone for now"), Connection(frames(2)))
    assert len(first(source, 2)) == 2


@pytest.mark.parametrize("error", [FrameError("no frame"), ZeroDivisionError("a defect")])
def test_an_error_of_another_kind_is_raised(plug, error):
    _, source = plug(Connection(frames(1), error))
    with pytest.raises(type(error)) as caught:
        first(source, 2)
    assert caught.value is error


def test_it_is_given_up_when_no_first_frame_comes(plug):
    _, source = plug(*[VideoError("it: refused")] * 1000, start_within_s=0.2)
    with pytest.raises(VideoError, match=r"^it: given up after 0\.2 s without a frame: refused$"):
        first(source, 1)


def test_it_is_given_up_when_no_frame_comes_any_more(plug):
    _, source = plug(Connection(frames(1)), *[VideoError("it: refused")] * 1000, give_up_after_s=0.2)
    with pytest.raises(VideoError, match=r"^it: given up after 0\.2 s without a frame: refused$"):
        first(source, 2)
    assert source.connections == 1


def test_a_consumer_that_takes_long_is_no_silence(plug):
    _, source = plug(Connection(frames(1, 2, 3), Silence()), silence_s=SOON, give_up_after_s=SOON)
    given = []
    for frame in source:
        given.append(frame.ticks)
        source._heard = -SOON  # as if it had taken so long
        if len(given) == 3:
            break
    assert given == [1, 2, 3]
    assert (source.connections, source.stalls) == (1, 0)


def test_waits_grow_by_the_factor_up_to_the_longest(plug, monkeypatch):
    waits = []
    monkeypatch.setattr(Reconnecting, "_pause", lambda _, seconds: waits.append(seconds))
    errors = [VideoError("it: refused")] * 6
    _, source = plug(*errors, Connection(frames(1)), first_wait_s=1, factor=3, longest_wait_s=20)
    first(source, 1)
    assert len(waits) == 6
    for wait, whole in zip(waits, [1, 3, 9, 20, 20, 20], strict=True):
        assert whole / 2 <= wait <= whole


@pytest.mark.parametrize("how", ["stop", "close"])
@pytest.mark.parametrize(
    ("connections", "state"),
    [
        (list, "connecting"),
        (lambda: [Connection(frames(1), Silence())], "live"),
        (lambda: [Connection(frames(1), VideoError("it: gone"))], "lost"),
    ],
    ids=["connecting", "live", "lost"],
)
def test_another_thread_can_end_it_in_every_state(plug, how, connections, state):
    plugged, source = plug(*connections(), first_wait_s=60, longest_wait_s=60)
    given, ended = [], []

    def read():
        given.extend(source)
        ended.append(time.perf_counter())

    reader = threading.Thread(target=read)
    reader.start()
    deadline = time.perf_counter() + SOON
    while (source.state != state or not (plugged.made or given)) and time.perf_counter() < deadline:
        time.sleep(0.001)
    assert source.state == state
    # A connection that ignores its end, as a driver may, is left to itself after a second.
    begin = time.perf_counter()
    getattr(source, how)()
    reader.join(SOON)
    assert len(ended) == 1
    assert ended[0] - begin < SOON
    assert len(given) == (state != "connecting")


def test_a_connection_that_hangs_is_waited_for_before_the_next(plug):
    silence = Silence()
    plugged, source = plug(Connection(frames(1), silence), Connection(frames(2)), silence_s=0.1)
    given = iter(source)
    next(given)
    reader = threading.Thread(target=lambda: next(given))
    reader.start()
    reader.join(1.5)
    assert len(plugged.made) == 1
    assert source.state == "stalled"
    silence.over.set()
    reader.join(SOON)
    assert len(plugged.made) == 2
    given.close()


@pytest.mark.slow
def test_a_camera_that_was_unplugged_comes_back(tmp_path, monkeypatch):
    path, capture = write_clip(tmp_path / "a.avi", moving_shapes(5), codec="mpeg4"), cv2.VideoCapture
    plugged_in = iter([True, False, False, True])
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture(str(path) if next(plugged_in) else "none"))
    source = Reconnecting(lambda: Camera(0), "camera 0", Reconnection(first_wait_s=1, longest_wait_s=1))
    given = first(source, 10)
    assert [frame.index for frame in given] == list(range(10))
    assert [frame.source for frame in given] == ["camera 0"] * 10
    assert all(before.seconds < after.seconds for before, after in pairwise(given))
    assert source.reason.startswith("cannot be opened: it is in use or not there")


def test_a_part_of_it_has_its_state_and_can_be_ended(plug):
    _, source = plug(Connection(frames(1, 2), Silence()))
    part = Part(source)
    assert part.state == "connecting"
    for _ in part:
        assert part.state == "live"
        part.stop()
    assert part.state == "live"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"silence_s": 0}, "silence_s: expected a number above 0, got 0"),
        ({"first_wait_s": float("nan")}, "first_wait_s: expected a number above 0, got nan"),
        ({"give_up_after_s": -1}, "give_up_after_s: expected a number above 0, got -1"),
        ({"factor": 0.5}, "factor: expected 1 or more, got 0.5"),
    ],
)
def test_a_plan_that_is_none_is_named(plan, said):
    with pytest.raises(VideoError, match=said):
        Reconnection(**plan)


def test_waits_may_stay_as_long_as_the_first():
    assert Reconnection(factor=1).factor == 1

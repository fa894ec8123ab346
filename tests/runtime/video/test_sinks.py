"""What is written of a stream, and what is left of it when something goes wrong or the program is killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from cases.video_clips import STEP, TICK, decoded, moving_shapes, write_clip
from places import SOURCE_ROOTS, SUPPORT, python_path

from cornernet_runtime.detections import Detections
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.errors import OutputError
from cornernet_runtime.video import writer
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.sinks import Callback, JsonLines, part_of
from cornernet_runtime.video.stream import FrameResult
from cornernet_runtime.video.writer import VideoWriter

FOUND = Detections(
    np.array([[10, 20, 90.5, 100], [3, 4, 30, 40]], np.float32),
    np.array([0.9, 0.5], np.float32),
    np.array([1, 0]),
    ("ant", "bee"),
)
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())
LOSS = 4  # grey levels on average that encoding may cost


def result(image, index=0, ticks=None, time_base=TICK, detections=NOTHING):
    frame = VideoFrame(image, index, STEP * index if ticks is None else ticks, time_base, "a")
    return FrameResult(frame, detections, 0.0, 0.0)


def results_of(path, **options):
    return [FrameResult(frame, NOTHING, 0.0, 0.0) for frame in VideoFile(path, **options)]


def write(path, results, **options):
    video = VideoWriter(path, **options)
    for one in results:
        video.write(one)
    video.close()
    return video


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def packets_of_sound(path):
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size > 0
        ]


# Annotated video.


def test_frames_are_written_with_the_detections_drawn(tmp_path):
    images = list(moving_shapes(10))
    write(tmp_path / "a.mp4", [result(image, index, detections=FOUND) for index, image in enumerate(images)])
    assert names(tmp_path) == ["a.mp4"]
    written = decoded(tmp_path / "a.mp4")
    assert len(written) == 10
    for image, (_, seen) in zip(images, written, strict=True):
        expected = draw_detections(image, FOUND).astype(int)
        assert np.abs(expected - seen).mean() < 2 * LOSS  # thin lines of bright colours lose more
        assert np.abs(expected - seen).mean() < np.abs(image.astype(int) - seen).mean(), "with boxes it is nearer"


def test_the_codec_is_h264_and_colours_are_told(tmp_path):
    colours = np.zeros((64, 96, 3), np.uint8)
    colours[:, :32], colours[:, 32:64], colours[:, 64:] = (200, 40, 30), (30, 180, 60), (20, 30, 210)
    write(tmp_path / "a.mp4", [result(colours, index) for index in range(3)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.codec_context.color_primaries, stream.codec_context.color_trc) == (1, 1)  # BT.709
    for column in (10, 48, 86):
        assert np.abs(decoded(tmp_path / "a.mp4")[1][1][32, column].astype(int) - colours[32, column]).max() < 8


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize(
    "ticks",
    [
        pytest.param([STEP * index for index in range(60)], id="even"),
        pytest.param([0, 300, 320, 1000, 5000, 5013, 9000, 9090, 20000, 40000, 40013, 41000], id="uneven"),
        pytest.param([4007 + STEP * index for index in range(30)], id="late"),
    ],
)
def test_times_are_those_of_the_source_to_the_tick_and_sound_is_passed_through(tmp_path, name, ticks):
    path = write_clip(tmp_path / name, moving_shapes(len(ticks)), ticks, sound=ticks[-1] / 12800 + 0.3)
    video = write(tmp_path / "out.mp4", results_of(path), sound=path)
    assert video.problems == []
    before, after = decoded(path), decoded(tmp_path / "out.mp4")
    assert len(after) == len(ticks)
    assert [seconds for seconds, _ in after] == [seconds for seconds, _ in before]
    for (_, image), (_, seen) in zip(before, after, strict=True):
        assert np.abs(image.astype(int) - seen).mean() < LOSS
    sound, expected = packets_of_sound(tmp_path / "out.mp4"), packets_of_sound(path)
    assert [float(seconds) for seconds, _ in sound] == pytest.approx([float(s) for s, _ in expected], abs=0.001)
    if name != "a.ts":  # there every packet has a header of its own, which MP4 has once
        assert [content for _, content in sound] == [content for _, content in expected]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(60), Fraction(15, 2)])
def test_times_of_any_rate_are_exact(tmp_path, rate):
    images = list(moving_shapes(8))
    write(tmp_path / "a.mp4", [result(image, n, n, 1 / rate) for n, image in enumerate(images)])
    assert [seconds for seconds, _ in decoded(tmp_path / "a.mp4")] == [n / rate for n in range(8)]


def test_times_before_zero_are_kept(tmp_path):
    images = list(moving_shapes(5))
    write(tmp_path / "a.mp4", [result(image, n, STEP * (n - 2)) for n, image in enumerate(images)])
    times = [seconds for seconds, _ in decoded(tmp_path / "a.mp4")]
    assert times == [Fraction(n - 2, 25) for n in range(5)]


def test_a_part_of_a_video_begins_at_zero_with_its_sound(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(50), sound=2)
    write(tmp_path / "out.mp4", results_of(path, start=1.0), sound=path, from_zero=True)
    assert [seconds for seconds, _ in decoded(tmp_path / "out.mp4")] == [Fraction(n, 25) for n in range(25)]
    sound = packets_of_sound(tmp_path / "out.mp4")
    content = [packet for _, packet in packets_of_sound(path)]
    first = content.index(sound[0][1])
    assert [packet for _, packet in sound] == content[first:]
    # A packet lasts 1024 samples at 8000 a second.
    assert 0 <= sound[0][0] < Fraction(1024, 8000)


def test_a_video_that_is_left_early_has_no_more_sound_than_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(50), sound=2)
    video = VideoWriter(tmp_path / "out.mp4", sound=path)
    for one in results_of(path)[:20]:
        video.write(one)
    video.close(whole=False)
    assert len(decoded(tmp_path / "out.mp4")) == 20
    assert 0.5 < packets_of_sound(tmp_path / "out.mp4")[-1][0] <= 0.8


def test_sound_that_has_no_place_in_an_mp4_is_left_out_and_told(tmp_path):
    path = write_clip(tmp_path / "a.avi", moving_shapes(5), codec="mpeg4")
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.avi"), "w") as output:
        track = output.add_stream_from_template(source.streams.video[0])
        tone = output.add_stream("pcm_mulaw", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = track
                output.mux(packet)
        output.mux(tone.encode(frame))
        output.mux(tone.encode(None))
    video = write(tmp_path / "out.mp4", results_of(tmp_path / "b.avi"), sound=tmp_path / "b.avi")
    assert video.problems == [f"{tmp_path / 'b.avi'}: its sound (pcm_mulaw) cannot be in an MP4, and is left out"]
    assert len(decoded(tmp_path / "out.mp4")) == 5


def test_without_an_h264_encoder_it_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "ENCODERS", ("none", "mpeg4"))
    write(tmp_path / "a.mp4", [result(image, index) for index, image in enumerate(moving_shapes(5))])
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert len(decoded(tmp_path / "a.mp4")) == 5
    monkeypatch.setattr(writer, "ENCODERS", ("none",))
    with pytest.raises(OutputError, match="this FFmpeg has none of the encoders none"):
        VideoWriter(tmp_path / "a.mp4")


@pytest.mark.parametrize(("size", "written"), [((125, 190), (126, 190)), ((126, 189), (126, 190)), ((1, 1), (2, 2))])
def test_an_odd_size_grows_by_a_row_or_column(tmp_path, size, written):
    image = next(moving_shapes(1))[: size[0], : size[1]]
    write(tmp_path / "a.mp4", [result(image, index) for index in range(3)])
    seen = decoded(tmp_path / "a.mp4")[0][1]
    assert seen.shape[:2] == written
    assert np.abs(seen[: size[0], : size[1]].astype(int) - image).mean() < 2 * LOSS


def test_frames_of_another_size_are_fitted_in_and_told_once(tmp_path):
    bright = np.full((60, 60, 3), 200, np.uint8)
    video = write(
        tmp_path / "a.mp4", [result(next(moving_shapes(1))), result(bright, 1), result(bright, 2), result(bright, 3)]
    )
    assert video.problems == [f"{tmp_path / 'a.mp4'}: frames of 60x60 are fitted into 190x126, the first's"]
    seen = decoded(tmp_path / "a.mp4")[3][1].astype(int)
    assert np.abs(seen[20:-20, 40:-40] - 200).max() < 12
    assert seen[:, :20].max() < 40
    assert seen[:, -20:].max() < 40


def test_without_frames_nothing_is_written(tmp_path):
    write(tmp_path / "a.mp4", [])
    assert names(tmp_path) == []


def test_a_name_that_is_no_mp4_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"a\.avi: annotated videos are MP4"):
        VideoWriter(tmp_path / "a.avi")


def test_after_an_error_what_was_written_is_whole_under_its_temporary_name(tmp_path):
    video = VideoWriter(tmp_path / "a.mp4")
    for index, image in enumerate(moving_shapes(30)):
        video.write(result(image, index))
    video.abort()
    video.abort()
    assert names(tmp_path) == ["a.part.mp4"]
    assert len(decoded(part_of(tmp_path / "a.mp4"))) == 30


def start(code, **options):
    folders = [*SOURCE_ROOTS, SUPPORT]
    environment = {**os.environ, "PYTHONPATH": python_path(*folders)}
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def writing(path):
    """Return a program that writes frames to a file until it is stopped, and tells each."""
    return f"""
import numpy as np
from pathlib import Path
from cases.video_clips import STEP, TICK, moving_shapes
from cornernet_runtime.detections import Detections
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.stream import FrameResult
from cornernet_runtime.video.writer import VideoWriter

none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())
video = VideoWriter(Path({str(path)!r}))
for index, image in enumerate(moving_shapes(100000)):
    video.write(FrameResult(VideoFrame(image, index, STEP * index, TICK, "a"), none, 0.0, 0.0))
    print(index, flush=True)
"""


def test_a_program_that_is_killed_leaves_all_but_the_last_second(tmp_path):
    process = start(writing(tmp_path / "a.mp4"))
    for line in process.stdout:
        if line == "150\n":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert names(tmp_path) == ["a.part.mp4"]
    written = decoded(tmp_path / "a.part.mp4")
    # All but the fragment at hand, a second, and what x264 looks ahead and has in its threads.
    assert len(written) >= 151 - 25 - 20
    assert [seconds for seconds, _ in written] == [Fraction(n, 25) for n in range(len(written))]


@pytest.mark.slow
def test_a_disk_that_is_full_is_named_and_what_was_written_is_kept(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(writing(tmp_path / "a.mp4"), preexec_fn=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert f"OutputError: cannot write {tmp_path / 'a.mp4'}: File too large" in last
    assert f"what was written until then is in {tmp_path / 'a.part.mp4'}" in last
    assert len(list(VideoFile(tmp_path / "a.part.mp4"))) > 20  # the last frame may be cut


# JSON lines and functions.


def test_json_lines_name_source_frame_time_and_objects(tmp_path):
    lines = JsonLines(tmp_path / "new" / "a.jsonl")
    lines.write(result(np.zeros((120, 160, 3), np.uint8), 3, detections=FOUND))
    assert names(tmp_path / "new") == ["a.part.jsonl"]
    assert part_of(tmp_path / "new" / "a.jsonl").read_text().count("\n") == 1, "each line is there at once"
    lines.write(result(np.zeros((120, 160, 3), np.uint8), 5))
    lines.close()
    assert names(tmp_path / "new") == ["a.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "new" / "a.jsonl").read_text().splitlines()]
    objects = [
        {"label": "bee", "score": 0.9, "box": [10, 20, 90.5, 100]},
        {"label": "ant", "score": 0.5, "box": [3, 4, 30, 40]},
    ]
    size = {"width": 160, "height": 120}
    assert rows == [
        {"source": "a", "frame": 3, "seconds": 0.12, **size, "detections": objects},
        {"source": "a", "frame": 5, "seconds": 0.2, **size, "detections": []},
    ]


def test_json_lines_after_an_error_stay_under_their_temporary_name(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.write(result(np.zeros((12, 16, 3), np.uint8)))
    lines.abort()
    assert names(tmp_path) == ["a.part.jsonl"]


def test_json_lines_go_to_standard_output(capsys):
    lines = JsonLines(Path("-"))
    lines.write(result(np.zeros((12, 16, 3), np.uint8)))
    lines.close()
    assert json.loads(capsys.readouterr().out)["frame"] == 0


def test_json_lines_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "a.part.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*a\.jsonl: Is a directory"):
        JsonLines(tmp_path / "a.jsonl")


def test_a_callback_is_shown_each_result():
    seen = []
    sink, one = Callback(seen.append), result(np.zeros((12, 16, 3), np.uint8))
    sink.write(one)
    sink.close()
    sink.abort()
    assert seen == [one]

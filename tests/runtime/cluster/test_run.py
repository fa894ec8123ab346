"""Runs on a real Ray, held against a single process."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases.cluster import assert_same, files_of, run_on_ray
from cases.video_clips import damaged, moving_shapes, write_clip

from cornernet_runtime.cluster import folder as folder_module
from cornernet_runtime.cluster import run as run_module
from cornernet_runtime.cluster.model import ModelIdentity, identify
from cornernet_runtime.cluster.plan import plan_units
from cornernet_runtime.cluster.tables import Columns
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, ClusterError, CornerNetWarning, FrameError, OutputError
from cornernet_runtime.pictures import find_pictures, read_picture
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.sources import Part as VideoPart

pytestmark = pytest.mark.usefixtures("ray_address")


@pytest.fixture(scope="module")
def detector(bundle_path):
    with Detector.open(bundle_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(120), keyframes=10)


@pytest.fixture(scope="module")
def finished(bundle_path, pictures, tmp_path_factory):
    """The folder of a run over the pictures, which no test changes; what became of it, and what was said."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, *run_on_ray(bundle_path, [pictures], folder)


@pytest.fixture
def half_done(finished, tmp_path):
    """A copy of that folder as a driver that was killed leaves it, with two of five parts missing."""
    shutil.copytree(finished[0], tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"finished": None}))
    for name in ("00000001.parquet", "00000003.parquet"):
        (tmp_path / "run" / "parts" / name).unlink()
    (tmp_path / "run" / "parts" / ".00000001.parquet.abc").write_bytes(b"half")  # of a worker that was killed
    return tmp_path / "run"


def test_rows_of_pictures_are_those_of_a_single_process(finished, detector, pictures):
    folder, summary, said = finished
    rows = list(summary.read_rows())
    counts = Counter()
    for row, path in zip(rows, find_pictures([str(pictures)]), strict=True):
        assert (row.source, row.index, row.name, row.timestamp) == (str(path), 0, None, None)
        if path.name in ("017-broken.jpg", "030-empty.png"):
            with pytest.raises(FrameError) as failure:
                read_picture(path)
            assert (row.error, row.detections, row.size) == (str(failure.value), None, None)
            assert row.error in said
            continue
        frame = read_picture(path)
        assert (row.error, row.size) == (None, frame.shape[:2])
        expected = detector(frame).above(0.05)
        assert_same(row.detections, expected)
        counts.update(name for _, _, name in expected)
    assert counts.total() > 100
    assert summary.counts == counts
    assert len(said) == 2
    totals = summary.totals
    assert (totals.parts, totals.pictures, totals.failed, totals.objects) == (5, 39, 2, counts.total())
    assert json.loads((folder / "run.json").read_text())["finished"] == {
        "parts": 5,
        "pictures": 39,
        "failed": 2,
        "objects": counts.total(),
    }


def test_files_are_plain_parquet_that_other_tools_read(finished):
    folder, summary, _ = finished
    frame = pa.dataset.dataset(folder / "parts").to_table().to_pandas()
    assert len(frame) == 41
    assert frame["error"].notna().sum() == 2
    assert frame["scores"].map(lambda scores: 0 if scores is None else len(scores)).sum() == summary.totals.objects
    first = frame[frame["error"].isna()].iloc[0]
    assert np.stack(first["boxes"]).shape == (len(first["labels"]), 4)
    assert json.loads(pq.read_schema(folder / "parts" / "00000000.parquet").metadata[b"class_names"]) == [
        "ant",
        "bee",
        "cat",
    ]


def test_flip_and_scales_are_those_of_the_detector(bundle_path, pictures, tmp_path):
    paths = sorted(pictures.glob("00*.png"))
    options = {"flip": True, "scales": (0.5, 1.0)}
    summary, _ = run_on_ray(bundle_path, paths, tmp_path / "run", score=0.0, **options)
    with Detector.open(bundle_path, **options) as views:
        for row, path in zip(summary.read_rows(), paths, strict=True):
            assert_same(row.detections, views(read_picture(path)))


def test_rows_without_a_folder_come_back(bundle_path, pictures, detector):
    summary, _ = run_on_ray(bundle_path, [pictures / "0*.png"], None, part_size=7)
    paths = find_pictures([str(pictures / "0*.png")])
    assert summary.folder is None
    for row, path in zip(summary.rows, paths, strict=True):
        assert row.source == str(path)
        if row.error is None:
            assert_same(row.detections, detector(read_picture(path)).above(0.05))


@pytest.mark.parametrize("layout", ["Hugging Face", "bytes and file_name", "named"])
def test_pictures_in_parquet_files_are_named_by_file_row_and_name(layout, bundle_path, detector, pictures, tmp_path):
    paths = sorted(path for path in pictures.iterdir() if path.name[:1] == "0")
    contents = [path.read_bytes() for path in paths]
    contents[4] = None
    names = [path.name for path in paths]
    if layout == "Hugging Face":
        rows = [{"bytes": content, "path": name} for content, name in zip(contents, names, strict=True)]
        table, columns = pa.table({"label": list(range(len(rows))), "image": rows}), Columns()
    elif layout == "named":
        table, columns = pa.table({"id": names, "photo": contents}), Columns("photo", "id")
    else:
        table, columns = pa.table({"file_name": names, "bytes": pa.array(contents, pa.large_binary())}), Columns()
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=9)
    summary, said = run_on_ray(bundle_path, [tmp_path], tmp_path / "run", columns=columns, part_size=6)
    rows = list(summary.read_rows())
    assert [(row.source, row.index, row.name) for row in rows] == [
        (str(tmp_path / "train.parquet"), number, name) for number, name in enumerate(names)
    ]
    for number, (row, path) in enumerate(zip(rows, paths, strict=True)):
        if number == 4 or "broken" in path.name or "empty" in path.name:
            assert path.name in row.error
            assert row.error in said
        else:
            assert_same(row.detections, detector(read_picture(path)).above(0.05))
    assert summary.totals.failed == 3


@pytest.mark.parametrize("every", [1, 7])
def test_a_video_spread_over_workers_is_that_of_a_single_pass(every, bundle_path, clip, detector, tmp_path):
    summary, said = run_on_ray(bundle_path, [clip], tmp_path / "run", every=every, part_size=-(-20 // every))
    assert said == []
    assert len(summary.parts) >= 4
    frames = list(VideoPart(VideoFile(clip), every=every))
    assert len(frames) == -(-120 // every)
    for row, frame in zip(summary.read_rows(), frames, strict=True):
        assert (row.source, row.index, row.timestamp) == (str(clip), frame.index, frame.seconds)
        assert row.size == (126, 190)
        assert_same(row.detections, detector(frame.image).above(0.05))


def test_a_damaged_video_is_done_again_as_a_whole(bundle_path, clip, detector, tmp_path):
    shutil.copy(clip, tmp_path / "bad.mp4")
    bad = damaged(tmp_path / "bad.mp4", [20])
    single = VideoFile(bad)
    frames = list(single)
    assert single.problems
    with pytest.warns(CornerNetWarning, match="damaged in") as told:
        summary, _ = run_on_ray(bundle_path, [bad, clip], tmp_path / "run", part_size=20)
    assert [str(warning.message) for warning in told] == single.problems
    names = sorted(files_of(tmp_path / "run"))
    assert names[0] == "00000000.parquet"
    assert all(name.startswith("00000001-") for name in names[1:])
    rows = [row for row in summary.read_rows() if row.source == str(bad)]
    for row, frame in zip(rows, frames, strict=True):
        assert (row.index, row.timestamp) == (frame.index, frame.seconds)
        assert_same(row.detections, detector(frame.image).above(0.05))
    # Killed between the whole video's file and the removal of its spans, or before either.
    shutil.copy(tmp_path / "run" / "parts" / names[1], tmp_path / "run" / "parts" / "00000000-00003.parquet")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(record | {"finished": None}))
    with pytest.warns(CornerNetWarning, match="damaged in"):
        again, _ = run_on_ray(bundle_path, [bad, clip], tmp_path / "run", part_size=20)
    assert again.computed == ()
    assert sorted(files_of(tmp_path / "run")) == names


def test_a_video_that_cannot_be_read_is_named_and_the_others_are_done(bundle_path, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    summary, said = run_on_ray(bundle_path, [tmp_path / "text.mp4", clip], tmp_path / "run", part_size=200)
    first, *others = summary.read_rows()
    assert (first.source, first.index, first.detections) == (str(tmp_path / "text.mp4"), None, None)
    assert said == [first.error]
    assert "give a video file" in first.error
    assert [row.index for row in others] == list(range(120))
    assert summary.totals.failed == 1


def test_finished_parts_are_not_computed_again(half_done, finished, bundle_path, pictures, monkeypatch):
    before = files_of(half_done)
    looked_at = []

    def read_summary(path):
        looked_at.append(path.name)
        return real(path)

    real = folder_module.read_summary
    monkeypatch.setattr(folder_module, "read_summary", read_summary)
    summary, _ = run_on_ray(bundle_path, [pictures], half_done)
    assert sorted(looked_at) == [f"{number:08d}.parquet" for number in range(5)]
    after = files_of(half_done)
    assert sorted((part.unit, part.pictures) for part in summary.computed) == [(1, 9), (3, 9)]
    assert {name: after[name] for name in before if name in after} == {
        name: state for name, state in before.items() if not name.startswith(".")
    }
    assert sorted(after) == [f"{number:08d}.parquet" for number in range(5)]
    for row, expected in zip(summary.read_rows(), finished[1].read_rows(), strict=True):
        assert (row.source, row.error) == (expected.source, expected.error)
        if row.error is None:
            assert_same(row.detections, expected.detections)
    assert summary.totals == finished[1].totals


def test_rows_are_those_of_the_parts_that_are_summed(half_done, finished, bundle_path, pictures):
    parts = half_done / "parts"
    shutil.copy(parts / "00000000.parquet", parts / "00000000-00001.parquet")  # of a worker that outlived its driver
    summary, _ = run_on_ray(bundle_path, [pictures], half_done)
    assert [row.source for row in summary.read_rows()] == [row.source for row in finished[1].read_rows()]
    assert (len(summary.parts), summary.totals) == (5, finished[1].totals)


def test_a_finished_run_needs_no_cluster(finished, bundle_path, pictures, monkeypatch):
    monkeypatch.setattr(run_module, "connected", None)  # calling it fails
    before = files_of(finished[0])
    summary, said = run_on_ray(bundle_path, [pictures], finished[0])
    assert (summary.computed, summary.totals, len(said)) == ((), finished[1].totals, 2)
    assert files_of(finished[0]) == before


@pytest.mark.parametrize("left", [b"", b"PAR1"])
def test_a_file_that_is_not_whole_is_done_again(left, half_done, bundle_path, pictures):
    (half_done / "parts" / "00000000.parquet").write_bytes(left)
    summary, _ = run_on_ray(bundle_path, [pictures], half_done)
    assert sorted(part.unit for part in summary.computed) == [0, 1, 3]
    assert len(list(summary.read_rows())) == 41


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"score": 0.25}, r"--score: 0.05 there, 0.25 now"),
        ({"flip": True}, r"--flip: off there, on now"),
        ({"scales": (0.5, 1.0)}, r"--scales: 1 there, 0.5,1 now"),
        ({"part_size": 11}, r"--part-size: 10 there, 11 now"),
    ],
)
def test_a_folder_of_another_run_is_refused(options, what, finished, bundle_path, pictures):
    before = files_of(finished[0])
    with pytest.raises(OutputError, match=f"holds the results of another run .{what}.; choose another --output"):
        run_on_ray(bundle_path, [pictures], finished[0], **options)
    assert files_of(finished[0]) == before


def test_a_folder_of_other_sources_or_another_model_is_refused(finished, bundle_path, pictures, tmp_path):
    with pytest.raises(OutputError, match="its sources are others, or were changed since"):
        run_on_ray(bundle_path, [pictures / "00*.png"], finished[0])
    shutil.copytree(bundle_path, tmp_path / "other")
    text = (tmp_path / "other" / "bundle.json").read_text()
    (tmp_path / "other" / "bundle.json").write_text(text.replace('"ant"', '"elk"'))
    with pytest.raises(OutputError, match="its model is another"):
        run_on_ray(tmp_path / "other", [pictures], finished[0])


def test_a_folder_with_other_things_is_refused_and_left_alone(bundle_path, pictures, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds other things than a run of --ray"):
        run_on_ray(bundle_path, [pictures], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_worker_with_another_model_ends_the_run_in_one_line(bundle_path, pictures, tmp_path, monkeypatch):
    real = identify(str(bundle_path))
    monkeypatch.setattr(run_module, "identify", lambda _: ModelIdentity(real.spec, "0" * 64))  # as on another machine
    with pytest.raises(ClusterError) as failure:
        run_on_ray(bundle_path, [pictures], tmp_path / "run")
    text = str(failure.value)
    assert f"{bundle_path} is another model here (SHA-256 {real.sha256[:12]}...)" in text
    assert "copy the same bundle to every machine" in text
    assert "kept" not in text  # nothing was finished
    assert len(text.splitlines()) == 1


def test_a_full_disk_is_said_and_finished_parts_are_kept(bundle_path, pictures, tmp_path):
    (tmp_path / "small").mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=40k", "none", str(tmp_path / "small"))
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("a small disk can be mounted by root only")
    try:
        with pytest.raises(ClusterError, match=r"cannot write .*: No space left on device; finished parts are kept"):
            run_on_ray(bundle_path, [pictures], tmp_path / "small" / "run", score=0.0, part_size=4)
        kept = files_of(tmp_path / "small" / "run")
        assert kept
        assert not any(name.startswith(".") for name in kept)
        subprocess.run((*mount[:4], "remount,size=10m", *mount[5:]), check=True)  # noqa: S603
        summary, _ = run_on_ray(bundle_path, [pictures], tmp_path / "small" / "run", score=0.0, part_size=4)
        assert len(summary.computed) == 11 - len(kept)
        assert {name: state for name, state in files_of(tmp_path / "small" / "run").items() if name in kept} == kept
    finally:
        subprocess.run((str(shutil.which("umount")), str(tmp_path / "small")), check=True)  # noqa: S603


def test_what_no_machine_has_is_refused_unless_it_is_waited_for(bundle_path, pictures, tmp_path):
    with pytest.raises(
        ClusterError, match=r"no machine of the cluster has 1 CPU and 1 GPU .* the most of one are 2 CPU, 0"
    ):
        run_on_ray(bundle_path, [pictures], tmp_path / "run", worker_gpus=1.0)
    with pytest.warns(CornerNetWarning, match="a place for 2 of 3 workers; the others wait"):
        summary, _ = run_on_ray(bundle_path, [pictures / "00*.png"], tmp_path / "other", workers=3, part_size=1)
    assert 1 <= summary.workers <= 2


def test_a_picture_that_is_there_twice_has_two_rows(bundle_path, pictures, tmp_path):
    path = pictures / "000.png"
    summary, _ = run_on_ray(bundle_path, [path, path], tmp_path / "run")
    first, second = summary.read_rows()
    assert first.source == second.source == str(path)
    assert_same(first.detections, second.detections)


@pytest.mark.parametrize("source", ["", "*"])
def test_a_source_of_several_kinds_is_refused(source, bundle_path, pictures, tmp_path):
    shutil.copy(pictures / "000.png", tmp_path / "a.png")
    (tmp_path / "run.json").write_text("{}")
    assert plan_units([str(tmp_path / source)], 10, Columns()).sources == 1
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(FrameError, match=r"holds pictures .1. and Parquet files .1. and videos .1.; name them apart"):
        run_on_ray(bundle_path, [tmp_path / source], tmp_path / "run")


def test_an_image_column_that_is_missing_is_told_before_anything_starts(bundle_path, tmp_path):
    pq.write_table(pa.table({"text": ["a"], "photo": [b"b"]}), tmp_path / "a.parquet")
    with pytest.raises(
        FrameError, match=r"expected a column of encoded pictures, got text \(string\), photo \(binary\)"
    ):
        run_on_ray(bundle_path, [tmp_path / "a.parquet"], tmp_path / "run")
    with pytest.raises(FrameError, match="no column other; --name-column takes one of text, photo"):
        run_on_ray(bundle_path, [tmp_path / "a.parquet"], tmp_path / "run", columns=Columns("photo", "other"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_before_a_part_is_finished_leaves_the_folder_to_others(bundle_path, pictures, tmp_path):
    for options in ({"worker_cpus": 99}, {"worker_cpus": 98, "score": 0.5}):
        with pytest.raises(ClusterError, match=r"no machine of the cluster has 9\d CPU") as failed:
            run_on_ray(bundle_path, [pictures], tmp_path / "run", **options)
        assert "kept" not in str(failed.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_backend_that_there_is_not_is_named_before_anything_starts(bundle_path, pictures, tmp_path):
    with pytest.raises(BackendError, match=r"^no backend is called 'foo'"):
        run_on_ray(bundle_path, [pictures], tmp_path / "run", backend="foo")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "size"), [(1, 8), (41, 8), (320, 10), (8192, 256), (20_000, 256)])
def test_a_part_is_a_share_of_all_unless_told(count, size, pictures):
    parts = plan_units([str(pictures / "000.png")] * count, None, Columns()).units
    assert [part.count for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert sum(part.count for part in parts) == count
    assert parts[-1].count <= size

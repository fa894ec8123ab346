"""What a worker makes of failures: rows where a file is bad, and the end of the run where its machine is."""

from __future__ import annotations

import json
import os

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases.cluster import assert_same
from cases.video_clips import moving_shapes, write_clip

from cornernet_runtime.bundle.records import from_json, to_json
from cornernet_runtime.cluster import parts as parts_module
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.cluster.plan import Part, plan_units
from cornernet_runtime.cluster.rows import PartSummary, rows_from_bytes
from cornernet_runtime.cluster.tables import Columns
from cornernet_runtime.cluster.worker import Task, Worker, spans_in
from cornernet_runtime.video import file as file_module

UNREADABLE = "/proc/self/mem"  # nothing is mapped where it begins: reading gives EIO


@pytest.fixture(scope="module")
def worker(bundle_path):
    """A worker in this process, which sends rows back."""
    threads = cv2.getNumThreads()
    task = Task(
        model=str(bundle_path),
        sha256=identify(str(bundle_path)).sha256,
        backend=None,
        flip=False,
        scales=(1.0,),
        score=0.05,
        every=1,
        columns=Columns(),
        cpus=2,
        videos=True,
        output=None,
        base=None,
    )
    yield Worker(task)
    cv2.setNumThreads(threads)


def do(worker, part):
    """Return the summary and rows of a part, or why there are none."""
    answer = worker({"part": json.dumps(to_json(part))})
    if answer["fatal"] is not None:
        assert answer["summary"] is answer["rows"] is None
        return answer["fatal"]
    return from_json(PartSummary, json.loads(answer["summary"])), list(rows_from_bytes(answer["rows"]))


def only_unit(source):
    (unit,) = plan_units([str(source)], 256, Columns()).units
    return unit


@pytest.fixture(scope="module")
def encoded():
    return [cv2.imencode(".png", frame[:64, :96])[1].tobytes() for frame in moving_shapes(30)]


@pytest.fixture
def table(encoded, tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"bytes": encoded}), path, row_group_size=10, compression="none", use_dictionary=False)
    return path


@pytest.mark.parametrize("problem", [MemoryError("no memory"), RuntimeError("CUDA error: unspecified launch failure")])
@pytest.mark.parametrize("kind", ["table", "video"])
def test_what_no_source_caused_writes_nothing(kind, problem, worker, table, tmp_path, monkeypatch):
    if kind == "table":
        module, name, source = parts_module, "decode_picture", table
    else:
        module, name, source = file_module, "image_of", write_clip(tmp_path / "clip.mp4", moving_shapes(20))
    real, calls = getattr(module, name), []

    def fifth_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise problem
        return real(*arguments)

    monkeypatch.setattr(module, name, fifth_fails)
    assert f"{type(problem).__name__}: {problem}" in do(worker, only_unit(source))
    monkeypatch.undo()
    summary, rows = do(worker, only_unit(source))
    assert (summary.pictures, summary.failed) == (len(rows), 0)


def test_a_picture_for_which_opencv_has_no_memory_ends_the_run(worker, table, monkeypatch):
    def imdecode(*_):
        problem = cv2.error("Failed to allocate 3000000000 bytes")
        problem.code, problem.err = cv2.Error.StsNoMem, "Failed to allocate 3000000000 bytes"
        raise problem

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    assert f"{table}, row 0: cannot be decoded: Failed to allocate 3000000000 bytes" in do(worker, only_unit(table))


def test_a_damaged_row_group_costs_its_rows_only(worker, table):
    whole = do(worker, only_unit(table))[1]
    column = pq.ParquetFile(table).metadata.row_group(1).column(0)
    content = bytearray(table.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    table.write_bytes(content)
    summary, rows = do(worker, only_unit(table))
    assert (summary.pictures, summary.failed, len(summary.errors)) == (20, 10, 10)
    assert [row.index for row in rows] == list(range(30))
    for row, expected in zip(rows, whole, strict=True):
        if 10 <= row.index < 20:
            assert f"row {row.index}: row group 1 cannot be read: " in row.error
        else:
            assert_same(row.detections, expected.detections)
    _, rows = do(worker, Part(0, "table", (str(table),), first=15, count=10))
    assert [(row.index, row.error is None) for row in rows] == [(number, number >= 20) for number in range(15, 25)]


def test_a_table_that_has_fewer_rows_here_ends_the_run(worker, encoded, table):
    unit = only_unit(table)
    pq.write_table(pa.table({"bytes": encoded[:25]}), table)
    assert "expected 30 rows or more, as there were, got 25" in do(worker, unit)


@pytest.mark.parametrize("how", ["gone", "gives EIO"])
@pytest.mark.parametrize("kind", ["pictures", "table", "video"])
def test_a_file_that_this_machine_does_not_see_ends_the_run(kind, how, worker, encoded, table, tmp_path):
    source = {"pictures": tmp_path / "a.png", "table": table, "video": tmp_path / "a.mp4"}[kind]
    if kind == "pictures":
        source.write_bytes(encoded[0])
    elif kind == "video":
        write_clip(source, moving_shapes(20))
    unit = only_unit(source)
    source.unlink()
    if how == "gives EIO":
        source.symlink_to(UNREADABLE)
    fatal = do(worker, unit)
    assert f"worker on {os.uname().nodename}: {source}: cannot be read " in fatal
    if kind == "video":
        row = {"unit": 0, "path": os.fsencode(source), "seen": True, "least": 5}
        assert f"{source}: cannot be read here" in spans_in(row)["fatal"]


def test_a_picture_that_was_missing_from_the_beginning_has_its_row(worker, encoded, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded[0])
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere")
    unit = only_unit(tmp_path)
    assert unit.missing == (str(tmp_path / "b.png"),)
    summary, (first, second) = do(worker, unit)
    assert (summary.pictures, summary.failed, first.error) == (1, 1, None)
    assert second.error == f"{tmp_path / 'b.png'}: cannot be read: No such file or directory"

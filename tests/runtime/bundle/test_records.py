from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.records import RecordError, from_json, to_json


@dataclass(frozen=True, slots=True)
class Part:
    level: float
    name: str = "plain"


@dataclass(frozen=True, slots=True)
class Whole:
    count: int
    ratio: float
    title: str
    active: bool
    mode: Literal["fast", "exact"]
    pair: tuple[int, float]
    names: tuple[str, ...]
    table: dict[str, int]
    part: Part
    parts: tuple[Part, ...] = ()
    limit: int | None = None
    extra: Part = field(default_factory=lambda: Part(1.0))


WHOLE = Whole(
    count=3,
    ratio=0.5,
    title="räume",
    active=True,
    mode="exact",
    pair=(1, 2.5),
    names=("a", "b"),
    table={"x": 1},
    part=Part(2.0, "first"),
    parts=(Part(3.0), Part(4.0)),
    limit=7,
)

texts = st.text(max_size=5)
numbers = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Part, level=numbers, name=texts)
wholes = st.builds(
    Whole,
    count=st.integers(),
    ratio=numbers,
    title=texts,
    active=st.booleans(),
    mode=st.sampled_from(["fast", "exact"]),
    pair=st.tuples(st.integers(), numbers),
    names=st.lists(texts, max_size=3).map(tuple),
    table=st.dictionaries(texts, st.integers(), max_size=3),
    part=parts,
    parts=st.lists(parts, max_size=3).map(tuple),
    limit=st.none() | st.integers(),
    extra=parts,
)


def changed(path, value):
    """Return WHOLE as JSON with the value at ``path`` (keys and list indices) replaced."""
    data = place = to_json(WHOLE)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


@settings(deadline=None, derandomize=True)
@given(wholes)
def test_a_record_comes_back_equal_through_json_text(record):
    assert from_json(Whole, json.loads(json.dumps(to_json(record)))) == record


def test_to_json_gives_plain_dicts_and_lists_in_field_order():
    assert list(to_json(WHOLE).items()) == [
        ("count", 3),
        ("ratio", 0.5),
        ("title", "räume"),
        ("active", True),
        ("mode", "exact"),
        ("pair", [1, 2.5]),
        ("names", ["a", "b"]),
        ("table", {"x": 1}),
        ("part", {"level": 2.0, "name": "first"}),
        ("parts", [{"level": 3.0, "name": "plain"}, {"level": 4.0, "name": "plain"}]),
        ("limit", 7),
        ("extra", {"level": 1.0, "name": "plain"}),
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["count"], "3", "count: expected int, got str '3'"),
        (["count"], 3.0, "count: expected int, got float 3.0"),
        (["count"], None, "count: expected int, got NoneType None"),
        (["count"], True, "count: expected int, got bool True"),
        (["ratio"], "0.5", "ratio: expected a finite number, got str '0.5'"),
        (["ratio"], False, "ratio: expected a finite number, got bool False"),
        (["ratio"], float("nan"), "ratio: expected a finite number, got float nan"),
        (["ratio"], float("inf"), "ratio: expected a finite number, got float inf"),
        (["ratio"], float("-inf"), "ratio: expected a finite number, got float -inf"),
        (["title"], 1, "title: expected str, got int 1"),
        (["title"], ["a"], "title: expected str, got list ['a']"),
        (["active"], 1, "active: expected bool, got int 1"),
        (["active"], "true", "active: expected bool, got str 'true'"),
        (["mode"], "slow", "mode: expected one of fast, exact, got str 'slow'"),
        (["mode"], ["fast"], "mode: expected one of fast, exact, got list ['fast']"),
        (["mode"], 0, "mode: expected one of fast, exact, got int 0"),
        (["pair"], [1], "pair: expected 2 items, got list [1]"),
        (["pair"], [1, 2.0, 3], "pair: expected 2 items, got list [1, 2.0, 3]"),
        (["pair", 0], 1.5, "pair[0]: expected int, got float 1.5"),
        (["pair", 1], None, "pair[1]: expected a finite number, got NoneType None"),
        (["names"], "ab", "names: expected a list, got str 'ab'"),
        (["names"], {"a": 1}, "names: expected a list, got dict {'a': 1}"),
        (["names", 1], 5, "names[1]: expected str, got int 5"),
        (["table"], [1], "table: expected an object, got list [1]"),
        (["table", "x"], "1", "table.x: expected int, got str '1'"),
        (["part"], [], "part: expected an object, got list []"),
        (["part"], None, "part: expected an object, got NoneType None"),
        (["part", "level"], "2", "part.level: expected a finite number, got str '2'"),
        (["parts", 1, "level"], None, "parts[1].level: expected a finite number, got NoneType None"),
        (["limit"], "7", "limit: expected int, got str '7'"),
        (["limit"], True, "limit: expected int, got bool True"),
    ],
)
def test_a_wrong_type_is_named_by_path_and_by_what_came(path, value, message):
    with pytest.raises(RecordError) as caught:
        from_json(Whole, changed(path, value))
    assert str(caught.value) == message


def test_a_number_too_large_for_float_is_not_finite():
    with pytest.raises(RecordError, match=r"^ratio: expected a finite number, got int "):
        from_json(Whole, changed(["ratio"], 10**400))


def test_an_integer_is_a_number_and_becomes_float():
    ratio = from_json(Whole, changed(["ratio"], 2)).ratio
    assert (ratio, type(ratio)) == (2.0, float)


@pytest.mark.parametrize(
    ("path", "message"),
    [(["count"], "count: missing"), (["part", "level"], "part.level: missing"), (["table"], "table: missing")],
)
def test_a_missing_field_is_named_by_path(path, message):
    data = place = to_json(WHOLE)
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(RecordError) as caught:
        from_json(Whole, data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["colour"], "colour: unknown field"),
        (["part", "colour"], "part.colour: unknown field"),
        (["parts", 0, "colour"], "parts[0].colour: unknown field"),
    ],
)
def test_an_unknown_field_is_named_by_path(path, message):
    with pytest.raises(RecordError) as caught:
        from_json(Whole, changed(path, "red"))
    assert str(caught.value) == message


def test_fields_with_defaults_may_be_absent():
    data = to_json(WHOLE)
    for name in ("parts", "limit", "extra"):
        del data[name]
    record = from_json(Whole, data)
    assert (record.parts, record.limit, record.extra) == ((), None, Part(1.0))


def test_null_is_taken_where_none_is_allowed():
    assert from_json(Whole, changed(["limit"], None)).limit is None


@pytest.mark.parametrize(("data", "came"), [([], "list []"), (None, "NoneType None"), ("x", "str 'x'"), (1, "int 1")])
def test_what_is_no_object_is_refused(data, came):
    with pytest.raises(RecordError) as caught:
        from_json(Whole, data)
    assert str(caught.value) == f"the document: expected an object, got {came}"


def test_the_path_of_the_document_leads_the_path_of_the_field():
    with pytest.raises(RecordError, match=r"^spec\.part\.level: expected"):
        from_json(Whole, changed(["part", "level"], "2"), "spec")


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(RecordError) as caught:
        from_json(Whole, changed(["count"], "z" * 10_000))
    assert str(caught.value) == f"count: expected int, got str '{'z' * 56}..."

"""The part of JSON Schema that this project's schemas use, as a small independent reader."""

from __future__ import annotations

import json
from importlib import resources

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def latency_schema():
    """Return the schema of what ``cornernet-bench latency --json`` writes."""
    return _schema("latency")


def compare_schema():
    """Return the schema of what ``cornernet-bench compare --json`` writes."""
    return _schema("compare")


def stream_schema():
    """Return the schema of what ``cornernet-bench stream --json`` writes."""
    return _schema("stream")


def serve_schema():
    """Return the schema of what ``cornernet-bench serve --json`` writes."""
    return _schema("serve")


def _schema(command):
    return json.loads(resources.files("cornernet_bench").joinpath(f"schemas/{command}.schema.json").read_text())


def problems(value, schema, root=None, path="$"):
    """Yield what of ``value`` the schema does not allow, each with where it stands; a keyword not known here raises."""
    root = schema if root is None else root
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from problems(value, target, root, path)
    for keyword, wanted in schema.items():
        if keyword in ANNOTATIONS or keyword == "$ref":
            continue
        yield from CHECKS[keyword](value, wanted, schema, root, path)


def of_type(value, name):
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def check_type(value, wanted, _schema, _root, path):
    names = wanted if isinstance(wanted, list) else [wanted]
    if not any(of_type(value, name) for name in names):
        yield f"{path}: {value!r} is no {' or '.join(names)}"


def check_properties(value, wanted, _schema, root, path):
    for name in wanted.keys() & value.keys() if isinstance(value, dict) else ():
        yield from problems(value[name], wanted[name], root, f"{path}.{name}")


def check_required(value, wanted, _schema, _root, path):
    yield from (f"{path}: {name} is missing" for name in wanted if isinstance(value, dict) and name not in value)


def check_more(value, wanted, schema, root, path):
    for name in value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ():
        if wanted is False:
            yield f"{path}: {name} is unknown"
        else:
            yield from problems(value[name], wanted, root, f"{path}.{name}")


def check_items(value, wanted, _schema, root, path):
    for index, item in enumerate(value if isinstance(value, list) else ()):
        yield from problems(item, wanted, root, f"{path}[{index}]")


def check_any(value, wanted, _schema, root, path):
    if all(list(problems(value, choice, root, path)) for choice in wanted):
        yield f"{path}: {value!r} fits none of {len(wanted)}"


def check_that(text, holds):
    def check(value, wanted, _schema, _root, path):
        if isinstance(value, (dict, bool)) or value is None or isinstance(value, str) or not holds(value, wanted):
            yield f"{path}: {value!r} is not {text} {wanted}"

    return check


CHECKS = {
    "type": check_type,
    "properties": check_properties,
    "required": check_required,
    "additionalProperties": check_more,
    "items": check_items,
    "anyOf": check_any,
    "enum": lambda value, wanted, _schema, _root, path: [] if value in wanted else [f"{path}: {value!r}"],
    "const": lambda value, wanted, _schema, _root, path: [] if value == wanted else [f"{path}: {value!r}"],
    "minItems": check_that("as long as", lambda value, wanted: len(value) >= wanted),
    "maxItems": check_that("no longer than", lambda value, wanted: len(value) <= wanted),
    "minimum": check_that("at least", lambda value, wanted: value >= wanted),
    "exclusiveMinimum": check_that("above", lambda value, wanted: value > wanted),
}

"""The schemas of the reports are JSON Schema, and no keyword of theirs is a word that a validator passes over."""

from __future__ import annotations

from cases.report_schema import SCHEMAS, report_schema
from jsonschema import Draft202012Validator

ANNOTATIONS = {"$schema", "$defs", "title", "description"}
OF_NAMES = {"properties", "$defs"}  # whose keys are names, not keywords


def test_schemas_are_valid_and_have_only_keywords_that_are_checked():
    commands = [path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir() if path.name.endswith(".json")]
    assert len(commands) >= 4
    for command in commands:
        schema = report_schema(command)
        Draft202012Validator.check_schema(schema)
        assert set(keywords(schema)) - Draft202012Validator.VALIDATORS.keys() - ANNOTATIONS == set(), command


def keywords(schema):
    """Yield every keyword of a schema and of those in it."""
    for key, value in schema.items():
        yield key
        inner = value.values() if key in OF_NAMES else value if isinstance(value, list) else [value]
        for one in inner:
            if isinstance(one, dict) and key not in ("const", "enum"):
                yield from keywords(one)

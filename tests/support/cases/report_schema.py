"""The JSON schemas of what ``cornernet-bench`` writes with --json, and what they say of a report."""

from __future__ import annotations

import json
from importlib import resources

from jsonschema import Draft202012Validator

SCHEMAS = resources.files("cornernet_bench").joinpath("schemas")


def report_schema(command):
    """Return the schema of what ``cornernet-bench COMMAND --json`` writes."""
    return json.loads(SCHEMAS.joinpath(f"{command}.schema.json").read_text(encoding="utf-8"))


def problems(report, command):
    """Return what of ``report`` the schema of ``command`` does not allow, each with where it stands."""
    return [
        f"{one.json_path}: {one.message}" for one in Draft202012Validator(report_schema(command)).iter_errors(report)
    ]

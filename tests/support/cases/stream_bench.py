"""``cornernet-bench stream``, small."""

from __future__ import annotations

from json_schema import stream_schema

from cornernet_bench.cli import main

SCHEMA = stream_schema()


def stream(model, *more):
    return main(["stream", str(model), *map(str, more)])

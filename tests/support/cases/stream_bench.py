"""``cornernet-bench stream``, small."""

from __future__ import annotations

from cornernet_bench.cli import main


def stream(model, *more):
    return main(["stream", str(model), *map(str, more)])

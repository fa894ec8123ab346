"""``cornernet-bench compare`` on a few scenes, of which ``folder`` of the tests of benchmarks holds the files."""

from __future__ import annotations

from cornernet_bench.cli import main

SCENES = 4


def run(folder, *arguments):
    data = ["--annotations", folder / "scenes" / "annotations.json", "--images", folder / "scenes" / "images"]
    return main(["compare", *map(str, [*arguments, *data, "--iterations", 2, "--warm-up", 1])])

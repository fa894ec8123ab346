"""Cases of test_pipeline.py: the shipped model on scenes that it was not trained on, enough of them to count."""

from __future__ import annotations

import sys
import time

from cases.pipeline import SHIPPED, UNSEEN_SEED, Pair

from cornernet_export.torch_backend.cpu import open_checkpoint
from cornernet_export.verification.matching import Tolerance, compare_detections
from cornernet_train.shapes import make_scene

SCENES, BATCH = 50, 4
# Scores are products of a few exponentials on maps that batches of other sizes change by 1e-6.
SAME = Tolerance(output=0, score=1e-3, iou=0.95, matched=0.995)


def fifty_unseen_scenes_of_the_shipped_model():
    start = time.perf_counter()
    pair = Pair(open_checkpoint(SHIPPED), max_batch=BATCH)
    scenes = [make_scene(UNSEEN_SEED, number).image for number in range(SCENES)]
    pending = [pair.pipeline.submit(scenes[first : first + BATCH]) for first in range(0, SCENES, BATCH)]
    found = [detections for one in pending for detections in one.result()]
    checks = [
        compare_detections(want, have, "CPU -> GPU", f"scene {number}", SAME)
        for number, (want, have) in enumerate(zip(pair.detector.batch(scenes), found, strict=True))
    ]
    wanted, matched, extra = (sum(getattr(one, name) for one in checks) for name in ("reference", "matched", "extra"))
    seconds = time.perf_counter() - start
    sys.stderr.write(f"{matched} of {wanted} detections have a counterpart, {extra} are extra; {seconds:.1f} s\n")
    assert wanted >= 3 * SCENES
    assert matched >= SAME.matched * wanted
    assert extra <= (1 - SAME.matched) * wanted

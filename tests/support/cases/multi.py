"""Sources for a stream of many, and what comes out of it."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict

import numpy as np
import pytest

from cornernet_runtime.errors import CornerNetWarning, VideoError
from cornernet_runtime.video.sources import Frames

PICTURE = np.zeros((64, 96, 3), np.uint8)
made_up = pytest.mark.usefixtures("sizes")


def pictures(count, name="frames", **options):
    return Frames((PICTURE for _ in range(count)), name=name, **options)


def endless(name, *, live=False):
    """Return a source that never waits, or, if it is live, gives five frames in the time of a run."""

    def frames():
        while True:
            time.sleep(0.004 if live else 0)
            yield PICTURE

    return Frames(frames(), live=live, name=name)


def failing(count, name):
    def frames():
        for _ in range(count):
            yield PICTURE
        raise LookupError("the lens is dirty")

    return Frames(frames(), name=name)


def taken_from(stream):
    """Return the indices of the results by source, the error, and the warnings."""
    seen, failed = defaultdict(list), None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CornerNetWarning)
        try:
            for result in stream:
                seen[result.frame.source].append(result.index)
        except VideoError as error:
            failed = error
    return dict(seen), failed, [str(warning.message) for warning in said]

"""Runs an exported CornerNet: frames in, boxes out.

>>> detector = Detector.open("build/tiny")
>>> detections = detector(frame)
>>> detections.boxes, detections.scores, detections.labels
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector

__all__ = ["CornerNetError", "Detections", "Detector", "__version__"]

_HOMES = {"Detections": "cornernet_runtime.detections", "Detector": "cornernet_runtime.detector"}


def __getattr__(name: str) -> object:
    # On first use: cornernet-doctor has to run where NumPy or OpenCV are broken, to say so.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

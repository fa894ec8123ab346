"""INT8 as a stage of the export: pictures to calibrate on, the quantised file, and how far it may be off."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import helper

from cornernet_export.int8.quantise import plan_pairs, quantise
from cornernet_export.int8.ranges import collect_ranges
from cornernet_export.verification.verify import input_of
from cornernet_runtime.backends.onnx_file import METADATA_KEY
from cornernet_runtime.bundle.spec import spec_to_text
from cornernet_runtime.errors import CornerNetWarning, FrameError
from cornernet_runtime.pictures import find_pictures, read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from cornernet_export.int8.ranges import Range
    from cornernet_runtime.bundle.spec import Int8Target
    from cornernet_runtime.detector import Detector

STAGE = "ONNX Runtime fp32 -> ONNX Runtime int8"
MOST_PICTURES = 256  # AP hardly changes beyond some tens, and CornerNet-104 takes seconds a picture
FEWEST_PICTURES = 32


def calibration_pictures(sources: Sequence[str]) -> list[Path]:
    """Return up to 256 pictures from all over the sources, each of which can be read.

    Fewer than 32 are taken with a ``CornerNetWarning``.

    Raises:
        FrameError: There is no source or a source names nothing or holds no picture, or a picture cannot be read.
    """
    if not sources:
        raise FrameError("int8 needs pictures like those that the model will see: add --calibration DIR, some hundred")
    found = find_pictures(sources)
    paths = found[:: -(-len(found) // MOST_PICTURES)]
    for path in paths:  # all of them before minutes of work
        read_picture(path)
    if len(paths) < FEWEST_PICTURES:
        warnings.warn(
            f"calibrating on {len(paths)} pictures only; with fewer than {FEWEST_PICTURES} the model may be off on "
            "others: give --calibration a folder of some hundred",
            CornerNetWarning,
            stacklevel=2,
        )
    return paths


def calibrate(
    model: onnx.ModelProto,
    target: Int8Target,
    detector: Detector,
    paths: Sequence[Path],
    on_stage: Callable[[str], None],
) -> dict[str, Range]:
    """Return the ranges that ``quantise`` needs, whatever is to stay in float32.

    Args:
        model: In float32, as ``build_onnx`` made it.
        target: Who is to run the INT8 file.
        detector: Prepares frames as they will be in use.
        paths: Pictures.
        on_stage: Told how far it is.

    Raises:
        FrameError: A picture cannot be read.
        VerificationError: A tensor has values that are not finite.
    """

    def images() -> Iterator[NDArray[np.float32]]:
        for number, path in enumerate(paths, 1):
            on_stage(f"calibrating int8: picture {number} of {len(paths)}")
            yield input_of(detector, read_picture(path))

    # Whatever a node in float32 leaves out, its neighbours in INT8 read or write in any case.
    return collect_ranges(model, sorted(plan_pairs(model.graph, target).readers), images())


def to_int8(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    detector: Detector,
    target: Int8Target,
    float_nodes: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the network in INT8 with a spec that says so.

    Args:
        model: As for ``quantise``.
        ranges: As for ``quantise``.
        detector: Has the spec of the float32 model.
        target: As for ``quantise``.
        float_nodes: As for ``quantise``.
    """
    quantised = quantise(model, ranges, target, float_nodes)
    spec = replace(detector.spec, precision="int8", int8_target=target)
    helper.set_model_props(quantised, {METADATA_KEY: spec_to_text(spec)})
    return quantised

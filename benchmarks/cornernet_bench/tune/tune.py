"""From a checkpoint to the fastest bundle of INT8 and float32 whose AP is within a budget, on this machine's CPU."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.measuring.machine import load_average
from cornernet_bench.measuring.timing import environment, interleave
from cornernet_bench.tune.checks import (
    REPORT_NAME,
    check_data,
    check_output,
    check_timing,
    check_writable,
    doubts,
)
from cornernet_bench.tune.search import UNITY, Mix, Outcome, ratio_of, search
from cornernet_export.bundle_export import ExportRequest, export_bundle, save_onnx
from cornernet_export.int8.export import STAGE, calibrate, calibration_pictures, to_int8
from cornernet_export.int8.groups import node_groups
from cornernet_export.verification.matching import INT8
from cornernet_export.verification.verify import input_of, read_some, sample_picture, verify
from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.bundle.manifest import MANIFEST_NAME, ONNX_NAME, Manifest, read_manifest, write_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetWarning, VerificationError
from cornernet_runtime.files import make_folder, new_folder, sha256, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from cornernet_bench.tune.request import TuneRequest

TARGET: Final = "cpu"  # time is measured here


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning came to.

    Attributes:
        outcome: What the search found.
        fp32_ap: AP of the float32 network, points of 100.
        warnings: What makes the times doubtful, for people.
    """

    outcome: Outcome
    fp32_ap: float
    warnings: tuple[str, ...] = ()


def _say_nothing(_: object) -> None:
    pass


def tune(
    request: TuneRequest,
    on_stage: Callable[[str], None] = _say_nothing,
    on_measured: Callable[[Mix], None] = _say_nothing,
) -> Tuned:
    """Search, and write the best mix as a bundle.

    Every measurement goes to ``tune.json`` at once, marked as partial until the search is over, so that an interrupt
    loses none.

    Args:
        request: What to do.
        on_stage: Told what is being done.
        on_measured: Told each mix that was measured.

    Raises:
        CornerNetError: CPU time is asked for with several threads, or too few rounds.
        FrameError: Annotations or pictures cannot be read, do not fit the checkpoint, or there is no object to find.
        CheckpointError: The checkpoint cannot be used.
        SizeError: The size is off the network's modulus.
        OutputError: The folder exists and is no unfinished tuning, or it cannot be written.
        VerificationError: The float32 export is off, or no mix is within the budget and faster than float32.
    """
    # What is wrong with any of them is said before the work begins.
    check_timing(request)
    check_output(request)
    load = load_average()
    check_data(request)
    paths = calibration_pictures(request.calibration or (str(request.images),))
    check_writable(request.output)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sizes = () if request.size is None else (request.size,)
        export_bundle(ExportRequest(request.checkpoint, folder / "float32", sizes), on_stage)
        exact = stack.enter_context(_opened(folder / "float32", request))
        model = onnx.load(folder / "float32" / ONNX_NAME)
        bench = Workbench(request, model, exact, folder / ONNX_NAME, on_stage)
        on_stage("measuring float32")
        bench.reference_ap = bench.ap_of(exact)
        if not bench.reference_ap > 0:
            raise VerificationError(
                f"{request.checkpoint}: its AP on {request.annotations} is 0 in fp32 already, and none can be lost: "
                "name annotations of what it was trained for"
            )
        bench.ranges = calibrate(model, TARGET, exact, paths, on_stage)
        report = _Report(request, bench.reference_ap, len(paths))

        def measure(float_groups: tuple[str, ...], with_ap: bool) -> Mix:
            mix = bench.measure(float_groups, with_ap=with_ap)
            report.add(mix)
            on_measured(mix)
            return mix

        outcome = search(tuple(bench.groups), measure, bench.reference_ap - request.max_ap_drop)
        lines = doubts(load, outcome.best, request)
        report.finish(outcome, lines)
        if not outcome.met and not request.force:
            for line in lines:
                warnings.warn(line, CornerNetWarning, stacklevel=2)
            raise VerificationError(
                f"no mix is faster than fp32 and within {request.max_ap_drop:g} AP of its {bench.reference_ap:.2f}; "
                f"the best found has {outcome.best.ap:.2f} at {outcome.best.times_fp32} times the speed: "
                "allow more with --max-ap-drop, or add --force to write it"
            )
        on_stage("verifying the best mix against float32")
        _write_bundle(request, bench, outcome, folder / "float32")
    return Tuned(outcome, bench.reference_ap, lines)


class Workbench:
    """Makes mixes of a network and measures them.

    Args:
        request: Says on what.
        model: In float32.
        exact: Runs it.
        path: Where to write a mix.
        on_stage: Told what is being done.
    """

    def __init__(
        self,
        request: TuneRequest,
        model: onnx.ModelProto,
        exact: Detector,
        path: Path,
        on_stage: Callable[[str], None] = _say_nothing,
    ) -> None:
        self.groups = node_groups(model.graph)
        self.ranges: dict[str, tuple[float, float]] = {}
        self.reference_ap = float("nan")
        self._request, self._model, self._path, self._on_stage = request, model, path, on_stage
        self.exact = exact
        self._whole = path.with_name("all-int8.onnx")
        self._count = 0

    def write(self, float_groups: tuple[str, ...], path: Path) -> None:
        """Write the mix that has these groups in float32."""
        nodes = [node for group in float_groups for node in self.groups[group]]
        save_onnx(to_int8(self._model, self.ranges, self.exact, TARGET, nodes), path)

    def ap_of(self, detector: Detector) -> float:
        """Return AP on the data set, points of 100."""
        return evaluate(detector, self._request.annotations, self._request.images).metrics["ap"]

    def measure(self, float_groups: tuple[str, ...], *, with_ap: bool) -> Mix:
        """Measure the time of one file, in turn with float32 and with all in INT8, and if asked for its AP."""
        self._count += 1
        self._on_stage(f"measuring mix {self._count}: {', '.join(float_groups) or 'nothing'} in float")
        self.write(float_groups, self._path)
        if float_groups and not self._whole.exists():
            self.write((), self._whole)
        image = input_of(self.exact, sample_picture())
        other = self._whole if float_groups else self._path
        with _opened(self._path, self._request) as mixed, _opened(other, self._request) as whole:
            ap = self.ap_of(mixed) if with_ap else None
            detectors = {"exact": self.exact, "whole": whole, "mixed": mixed}
            runs = {name: functools.partial(detector.backend, image) for name, detector in detectors.items()}
            now = time.process_time if self._request.cpu_time else time.perf_counter
            times = interleave(runs, self._request.rounds, now=now)
        by_fp32, by_int8 = (ratio_of(times[name], times["mixed"]) for name in ("exact", "whole"))
        return Mix(float_groups, by_fp32, by_int8 if float_groups else UNITY, ap)


def _opened(path: Path, request: TuneRequest) -> Detector:
    return Detector.open(path, threads=request.threads or None)


class _Report:
    """``tune.json``, whole after every measurement."""

    def __init__(self, request: TuneRequest, reference_ap: float, calibration: int) -> None:
        self._path = make_folder(request.output) / REPORT_NAME
        self._content: dict[str, Any] = {
            "complete": False,
            "environment": environment("onnxruntime"),
            "checkpoint": str(request.checkpoint),
            "annotations": str(request.annotations),
            "calibration_pictures": calibration,
            "rounds": request.rounds,
            "threads": request.threads or default_threads(),
            "clock": "process" if request.cpu_time else "host",
            "max_ap_drop": request.max_ap_drop,
            "fp32_ap": reference_ap,
            "measured": [],
        }

    def add(self, mix: Mix) -> None:
        self._content["measured"].append(asdict(mix))
        self._write()

    def finish(self, outcome: Outcome, doubtful: tuple[str, ...]) -> None:
        best = {**asdict(outcome.best), "within_budget": outcome.met, "reasons": outcome.reasons}
        self._content |= {"complete": True, "best": best, "warnings": doubtful}
        self._write()

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(self._content, indent=2, allow_nan=False) + "\n")


def _write_bundle(request: TuneRequest, bench: Workbench, outcome: Outcome, float32: Path) -> None:
    """Write the best mix as a bundle, with what float32 was verified with and what the mix is."""
    before = read_manifest(float32)
    frames = read_some(request.calibration or (str(request.images),))
    with new_folder(request.output, replace=True) as folder:
        bench.write(outcome.best.float_groups, folder / ONNX_NAME)
        for path in float32.iterdir():
            if path.name != MANIFEST_NAME and not path.name.startswith(ONNX_NAME):
                shutil.copy(path, folder)
        with Detector.open(folder / ONNX_NAME) as mixed:
            verification = before.verification + verify(bench.exact, mixed, STAGE, INT8, frames, noise=False)
        if not verification.passed:
            warnings.warn(
                "on the calibration pictures the best mix differs from float32 by more than INT8 usually does, though "
                f'its AP is {outcome.best.ap:.2f}: look at "verification" in {MANIFEST_NAME}, or calibrate on more '
                "pictures like those in use",
                CornerNetWarning,
                stacklevel=2,
            )
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        spec = replace(before.spec, precision="int8", int8_target=TARGET)
        write_manifest(folder, Manifest(before.producer, spec, files, verification, checkpoint=before.checkpoint))
        shutil.copy(request.output / REPORT_NAME, folder)

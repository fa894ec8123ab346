"""One layer of the self-test, as a process of its own: the module with the arguments LAYER, FILE and REQUEST."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from cornernet_bench.selftest.notes import Notes
from cornernet_bench.selftest.report import DOCTOR, MODEL, Finding, Request
from cornernet_runtime.bundle.records import from_json, to_json
from cornernet_runtime.errors import BundleError, CornerNetError, ModelError
from cornernet_runtime.machine import one_line


def main() -> int:
    """Run the layer that the arguments name; 0 also where it failed, which is in the file."""
    layer, file, request = sys.argv[1:]
    faulthandler.enable()
    _end_with_the_other()
    notes = Notes(Path(file))
    notes.write(find(layer, from_json(Request, json.loads(request)), notes))
    return 0


def find(layer: str, request: Request, notes: Notes) -> Finding:
    """Return what a layer found; an exception is a failure."""
    try:
        if layer == DOCTOR:
            return _diagnosis()
        if layer == MODEL:
            return _opened(str(request.model))
        from cornernet_bench.selftest.layers import RUNNERS  # noqa: PLC0415 - what it imports may crash

        found = RUNNERS[layer](request, notes)
    except CornerNetError as error:
        found = Finding("failed", str(error))
    except Exception as error:  # noqa: BLE001 - a library's; the report has where
        traceback.print_exc()
        found = Finding("failed", one_line(f"{type(error).__name__}: {error}"))
    return Finding(found.state, found.said, {**notes.figures, **found.figures}, found.output)


def _diagnosis() -> Finding:
    from cornernet_runtime.doctor import diagnose  # noqa: PLC0415 - imports what may crash

    return Finding("passed", "", to_json(diagnose()))


def _opened(model: str) -> Finding:
    """Return why it is refused as a model, if it is; where what would open it is not installed, nobody knows."""
    from cornernet_bench.model_names import CHECKPOINTS  # noqa: PLC0415 - imports what may crash
    from cornernet_bench.models.open import open_model  # noqa: PLC0415

    try:
        open_model(model, None if model.endswith(CHECKPOINTS) else "onnxruntime").close()
    except (BundleError, ModelError) as error:
        return Finding("failed", str(error), {"refused": str(error)})
    except (CornerNetError, ImportError) as error:
        return Finding("skipped", str(error))
    return Finding("passed", "")


def _end_with_the_other() -> None:
    """End this process and what it has started when the one that started it is gone, and its pipe is closed."""
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def wait() -> None:
        os.read(pipe, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(main())

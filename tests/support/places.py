"""Where the checkout and its parts lie."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = [ROOT / name for name in ("export", "runtime", "training", "benchmarks")]
SUPPORT = ROOT / "tests" / "support"
SHIPPED = ROOT / "models" / "cornernet-tiny" / "cornernet-tiny.safetensors"


def python_path(*folders: str | Path) -> str:
    """Return the PYTHONPATH of a process that a test starts; under CORNERNET_TEST_NOISE its networks have noise too."""
    noise = [SUPPORT / "noise"] if os.environ.get("CORNERNET_TEST_NOISE") else []
    return os.pathsep.join(map(str, filter(None, [*noise, *folders])))

"""Where the checkout and its parts lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = [ROOT / name for name in ("export", "runtime", "training", "benchmarks")]
SUPPORT = ROOT / "tests" / "support"
SHIPPED = ROOT / "models" / "cornernet-tiny" / "cornernet-tiny.safetensors"

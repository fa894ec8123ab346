"""Names that the benchmarks give to models: files of checkpoints, and the published pipeline."""

from __future__ import annotations

CHECKPOINTS = (".safetensors", ".pkl", ".pth")
PUBLISHED = "published"  # a backend of checkpoints: all steps, not the network alone, as the original takes them

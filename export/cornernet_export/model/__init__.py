"""The reference model in PyTorch: what every other form of it is held against."""

from cornernet_export.model.config import PRESETS, CornerNetConfig, preset
from cornernet_export.model.network import CornerNet, CornerTensors

__all__ = ["PRESETS", "CornerNet", "CornerNetConfig", "CornerTensors", "preset"]

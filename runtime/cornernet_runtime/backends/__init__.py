"""Backends: each runs the network and gives the six corner maps."""

from cornernet_runtime.backends.base import Backend

__all__ = ["Backend"]

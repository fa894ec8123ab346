"""Ctrl-C at a chosen moment."""

from __future__ import annotations

from cornernet_runtime.detector import Detector


def interrupting(monkeypatch, call):
    """Make Ctrl-C come within a detector's call of this number, in this process."""
    calls, batch = [], Detector.batch

    def interrupted(self, frames):
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return batch(self, frames)

    monkeypatch.setattr(Detector, "batch", interrupted)

"""Precision over recall as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.coco.judge import RECALLS
from cornernet_bench.reports.outputs import new_figure, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_bench.accuracy.evaluate import Accuracy


def draw_curves(accuracy: Accuracy, title: str, path: Path) -> None:
    """Draw precision over recall, mean over the classes, one line an overlap, and AP as a bar a class.

    Args:
        accuracy: What to draw.
        title: Stands above.
        path: A ``.png``, ``.svg`` or ``.pdf`` file.

    Raises:
        OutputError: matplotlib is not installed, does not know the format, or the file cannot be written.
    """
    names, values = list(accuracy.per_class), list(accuracy.per_class.values())
    figure = new_figure((11, max(4.5, 0.22 * len(names))))
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    # Broken lines, for curves of a good model hide each other.
    for (name, precision), dashes in zip(accuracy.curves.items(), ("-", "--", ":"), strict=True):
        left.plot(RECALLS, precision, dashes, label=f"IoU {name}")
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    left.grid(alpha=0.3)
    left.legend()
    bars = right.barh(range(len(names)), np.nan_to_num(values), color="tab:gray")
    right.bar_label(bars, ["-" if math.isnan(value) else f"{value:.1f}" for value in values], padding=3)
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set(xlabel="AP, points of 100", xlim=(0, 115))
    save_figure(figure, path)

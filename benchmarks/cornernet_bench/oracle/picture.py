"""Where AP is lost, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.reports.outputs import new_figure, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from cornernet_bench.oracle.analyse import Comparison, OracleReport


def draw_oracle(report: OracleReport, title: str, path: Path) -> None:
    """Draw AP with each exchange as a bar, the gain in another colour, and beside it what each repair brought.

    Args:
        report: What to draw.
        title: Stands above.
        path: A ``.png``, ``.svg`` or ``.pdf`` file.

    Raises:
        OutputError: matplotlib is not installed, does not know the format, or the file cannot be written.
    """
    count = 2 if report.comparison else 1
    figure = new_figure((7 * count, 6.5 if report.comparison else 4))
    axes = figure.subplots(1, count, squeeze=False)[0]
    partial = "" if report.complete else f" (interrupted: {report.pictures} of {report.listed} pictures)"
    figure.suptitle(title + partial)
    _draw_exchanges(axes[0], report)
    if report.comparison:
        _draw_repairs(axes[1], report.comparison)
    save_figure(figure, path)


def _draw_exchanges(axes: Axes, report: OracleReport) -> None:
    values = np.nan_to_num([metrics["ap"] for metrics in report.exchanges.values()])
    before = float(values[0])
    rows = range(len(values))
    axes.barh(rows, np.minimum(values, before), color="tab:gray")
    axes.barh(rows, np.maximum(values - before, 0), left=before, color="tab:green")
    bars = axes.barh(rows, values, alpha=0)  # carries the labels
    axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3)
    axes.axvline(before, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(rows, [report.title(kinds) for kinds in report.exchanges])
    axes.invert_yaxis()
    axes.set(title="with true maps", xlabel="AP, points of 100", xlim=(0, 115))


def _draw_repairs(axes: Axes, comparison: Comparison) -> None:
    effects = comparison.effects
    gains = np.nan_to_num([effect.gain.points for effect in effects])
    low, high = np.nan_to_num([[effect.gain.low, effect.gain.high] for effect in effects]).T
    colours = ["tab:red" if effect.repair.name == comparison.finding.cause else "tab:gray" for effect in effects]
    errors = np.maximum([gains - low, high - gains], 0)  # an interval of resampled sets need not hold the value
    rows = range(len(effects))
    axes.barh(rows, gains, xerr=errors, color=colours, error_kw={"linewidth": 1, "capsize": 2})
    axes.set_yticks(rows, [effect.repair.title for effect in effects])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(comparison.loss.points, color="tab:blue", linestyle="--", label="reference")
    axes.legend(loc="lower right")
    # An exchange that makes things worse is no cause; how much worse would only squeeze the rest.
    most = max(comparison.loss.points, float(high.max()), 1)
    axes.set(title="exchanged", xlabel="gain of AP, points", xlim=(-0.5 * most, 1.15 * most))

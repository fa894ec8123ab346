"""Accuracy over latency as a picture: which models no other beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.reports.outputs import new_figure, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from cornernet_bench.compare.report import CompareReport

WIDE, NARROW = (8.0, 4.6), (4.2, 4.2)  # inches
LOGARITHMIC = 8.0  # slowest through fastest from which on the axis of times is logarithmic
HALF_DECADE = (1, 2, 5)  # ticks of it
BESIDE = (5, 5), (-11, -13)  # a point, in turns, where its number begins


def draw_front(report: CompareReport, path: Path) -> None:
    """Draw the front into a ``.png``, ``.svg`` or ``.pdf`` file.

    Raises:
        OutputError: matplotlib is not installed, does not know the format, or the file cannot be written.
    """
    figure = front_figure(report, WIDE)
    names = "   ".join(f"{one.number}: {one.contestant.name}" for one in report.results)
    figure.suptitle(names + (" (partial)" if report.partial else ""), fontsize=8, wrap=True)
    save_figure(figure, path)


def front_figure(report: CompareReport, inches: tuple[float, float], ink: str = "black") -> Figure:
    """Return AP over time with their intervals, by the numbers of the models; those that no other beats are joined.

    Args:
        report: Models without AP or latency are left out.
        inches: Width and height.
        ink: Colour of text and axes.

    Raises:
        OutputError: matplotlib is not installed.
    """
    figure = new_figure(inches)
    axes = figure.subplots()
    shown = [
        (one.number, one, one.accuracy, one.latency.end_to_end)
        for one in report.results
        if one.accuracy is not None and one.latency is not None
    ]
    for rank, (number, one, accuracy, times) in enumerate(sorted(shown, key=lambda place: place[3].p50_ms)):
        ap = accuracy.metrics["ap"]
        p10 = times.p90_ms - times.spread_percent / 100 * times.p50_ms
        axes.errorbar(
            times.p50_ms,
            ap,
            xerr=[[max(times.p50_ms - p10, 0)], [max(times.p90_ms - times.p50_ms, 0)]],
            yerr=[[max(ap - accuracy.low, 0)], [max(accuracy.high - ap, 0)]],
            fmt="o",
            color="tab:blue" if one.best else "tab:gray",
            elinewidth=0.8,
            capsize=2,
        )
        place = BESIDE[rank % len(BESIDE)]  # neighbours may lie one on the other
        axes.annotate(str(number), (times.p50_ms, ap), xytext=place, textcoords="offset points", color=ink)
    best = sorted((times.p50_ms, accuracy.metrics["ap"]) for _, one, accuracy, times in shown if one.best)
    axes.plot([ms for ms, _ in best], [ap for _, ap in best], color="tab:blue", linewidth=1, drawstyle="steps-post")
    medians = [times.p50_ms for *_, times in shown]
    if medians and max(medians) > LOGARITHMIC * min(medians):
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter  # noqa: PLC0415 - as above

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=HALF_DECADE))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    unit = "milliseconds of CPU time (no latency)" if report.cpu_time else "milliseconds"
    axes.set_xlabel(f"{unit} a frame, p50, p10 to p90", color=ink)
    axes.set_ylabel("AP, points, 95 %", color=ink)
    axes.tick_params(colors=ink, which="both")
    for spine in axes.spines.values():
        spine.set_color(ink)
    axes.grid(alpha=0.25, color=ink)
    return figure

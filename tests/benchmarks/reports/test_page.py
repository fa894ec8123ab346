"""Reports as HTML pages: all inside, nothing cut off, nothing taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import util

import pytest
from matplotlib.figure import Figure
from servers.browser import chromium, look

from cornernet_bench.cli import main
from cornernet_bench.compare.picture import NARROW, WIDE
from cornernet_bench.reports.blocks import Line, table_of
from cornernet_bench.reports.page import Picture, page

WIDTHS = (1280, 390)
needs_chromium = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")


class Reader(HTMLParser):
    """Collects what a page refers to, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.cells, self._cell = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")]
        self._cell = "" if tag in ("td", "th") else self._cell

    def handle_data(self, data):
        self._cell = None if self._cell is None else self._cell + data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cells.append(self._cell)
            self._cell = None


@pytest.fixture(scope="module")
def latency(bundle_path, tmp_path_factory):
    """The page of a measurement of latency."""
    path = tmp_path_factory.mktemp("html") / "latency.html"
    command = ["latency", str(bundle_path), "--iterations", "3", "--warm-up", "1", "--batch", "1,2", "--workers", "2"]
    assert main([*command, "--html", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def bars(inches, ink):
    """Draw something with long names."""
    figure = Figure(figsize=inches, layout="constrained")
    figure.subplots().barh(["a rather long name", "another"], [1, 2], color=ink)
    return figure


@pytest.fixture(scope="module")
def crowded():
    """A page of what is hard to show: long words, markup, a table of many columns."""
    cells = [f"column {number} of many" for number in range(30)]
    blocks = [
        Line("<script>alert(1)</script> & [bold]brackets[/bold]", "heading"),
        Line("a" * 300, "warning"),
        table_of(cells, [["<b>1</b>", *cells[1:]], cells], texts=cells[:1]),
        Picture(bars, WIDE, NARROW, "bars"),
    ]
    return page("/a/very/long/path" * 12, blocks, "2026-01-01", "cornernet-bench compare " + "x" * 200)


def test_a_page_refers_to_nothing_outside_itself_and_runs_nothing(latency, crowded):
    for text in (latency, crowded):
        read = Reader(text)
        assert all(link.startswith(("#", "data:")) for link in read.links), read.links
        assert not {"script", "iframe", "object", "embed"} & set(read.tags)
        assert not re.search(r"url\((?!#)|@import", text)
        assert "Content-Security-Policy" in text


def test_the_page_of_latency_shows_the_figures_of_the_terminal(latency):
    read = Reader(latency)
    assert read.cells[:8] == ["stage", "p50 ms", "p90", "p95", "p99", "mean", "std", "spread"]
    for name in ("preprocess", "network", "decode", "soft-NMS", "other", "end to end"):
        assert read.cells.count(name) == 2, name  # of two batches
    assert read.tags.count("svg") == 4  # a wide and a narrow one each
    assert "2 workers, 1 frame a call each" in latency


def test_text_is_text_whatever_it_holds(crowded):
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; [bold]brackets[/bold]" in crowded
    assert "<b>1</b>" in Reader(crowded).cells


def test_drawings_take_the_colour_of_the_page_and_have_their_text_as_text(crowded):
    read = Reader(crowded)
    assert read.tags.count("text") >= 2 * 3
    assert "fill: currentColor" in crowded.replace("fill:currentColor", "fill: currentColor")
    assert "#012345" not in crowded


@pytest.mark.parametrize("command", ["latency", "compare"])
def test_without_jinja_a_page_is_refused_before_the_work(command, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "jinja2" else name)
    more = ["missing", "--annotations", "a.json", "--images", "a"] if command == "compare" else []
    assert main([command, "missing", *more, "--html", str(tmp_path / "a.html")]) == 1
    assert capfd.readouterr().err == "error: no HTML: jinja2 is not installed; pip install jinja2\n"


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["latency", "crowded"])
def test_nothing_is_cut_off_and_the_console_is_silent(request, name, width, tmp_path):
    text = request.getfixturevalue(name)
    seen = look(text, width, tmp_path)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["cut"] == []
    assert seen["console"] == []
    assert seen["tables"] == text.count("<table")
    assert seen["pictures"] == text.count("<svg") / 2


@pytest.mark.browser
@needs_chromium
def test_what_is_cut_off_and_what_the_console_says_would_be_seen(crowded, tmp_path):
    wide = crowded.replace("</main>", '<div style="width: 600px">wide</div><script>foo()</script></main>')
    seen = look(wide, 390, tmp_path)
    assert seen["cut"] == ["DIV: wide"]
    assert len(seen["console"]) == 1  # the policy lets no script run

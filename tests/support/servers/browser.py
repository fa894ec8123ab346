"""Chromium without a window, for what only a browser can tell of a page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# What sticks out of the page, or of its picture; a box that scrolls may hold more than it shows.
LOOK = """
const wide = window.innerWidth, cut = [];
for (const one of document.querySelectorAll('body *')) {
  const box = one.getBoundingClientRect();
  if (box.width === 0 || one.closest('script')) continue;
  const scrolls = one.parentElement.closest('.scroll');
  if (!scrolls && (box.right > wide + 1 || box.left < -1)) cut.push(one.tagName + ': ' + one.textContent.slice(0, 40));
  const picture = one.tagName === 'text' && one.closest('svg').getBoundingClientRect();
  if (picture && (box.right > picture.right + 1 || box.left < picture.left - 1 || box.bottom > picture.bottom + 1))
    cut.push('picture: ' + one.textContent);
}
const pre = document.createElement('pre');
pre.id = 'look';
pre.textContent = JSON.stringify({
  width: wide, scroll: document.documentElement.scrollWidth, cut,
  pictures: [...document.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().width > 0).length,
  tables: document.querySelectorAll('.scroll > table').length,
});
parent.document.body.append(pre);
"""


def chromium():
    """Return the path of Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def look(page, width, folder):
    """Return what is seen of a page at a width in pixels, and what the console says of it as it is."""
    plain, watched = folder / "plain.html", folder / "watched.html"
    plain.write_text(page, encoding="utf-8")
    within = html.escape(POLICY.sub("", page).replace("</body>", f"<script>{LOOK}</script></body>"))
    # A frame may be as narrow as a phone; the window of a desktop's browser may not.
    frame = f'<body style="margin: 0"><iframe style="width: {width}px; height: 2000px; border: 0" srcdoc="{within}">'
    watched.write_text(frame, encoding="utf-8")
    found = re.search(r'(?s)<pre id="look">(.*?)</pre>', _run(watched, folder).stdout)
    said = _run(plain, folder).stderr
    console = [line for line in said.splitlines() if "CONSOLE" in line]
    return {**json.loads(html.unescape(found[1])), "console": console}


def _run(page, folder):
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options = ["--window-size=1400,2000", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    return subprocess.run(  # noqa: S603 - a fixed command
        [*command, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )

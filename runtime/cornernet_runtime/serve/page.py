"""The page, and the policy that lets a browser run its own script and style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources


def page_and_policy() -> tuple[str, str]:
    """Return the page's HTML and its Content-Security-Policy."""
    page = resources.files("cornernet_runtime").joinpath("serve/page.html").read_text(encoding="utf-8")
    script, style = (_hash(page, element) for element in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _hash(page: str, element: str) -> str:
    found = re.search(rf"(?s)<{element}>(.*?)</{element}>", page)
    content = found[1] if found else ""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

"""A page in Chromium without a window, driven over its debugging protocol: what a user does, and what is seen then."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
import urllib.request

from servers.browser import chromium
from websockets.sync.client import connect

START_S = 60


@contextlib.contextmanager
def open_page(url, folder):
    """Yield a page of a URL, once it is loaded; ``folder`` is for the browser's profile."""
    profile = folder / "profile"
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    options = ["--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:  # noqa: S603
        try:
            port = _port(profile / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=START_S) as response:
                target = next(one for one in json.load(response) if one["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.command(f"{domain}.enable")
                page.command("Page.navigate", url=url)
                page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
                yield page
        finally:
            browser.terminate()


def _port(path):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(path.read_text().splitlines()[0])
        time.sleep(0.05)
    raise TimeoutError(f"Chromium wrote no {path.name} within {START_S} s")


class Page:
    """Commands of the protocol; what the console says meanwhile is kept in ``console``, addresses in ``asked``."""

    def __init__(self, socket):
        self._socket, self._number = socket, 0
        self.console, self.asked = [], []

    def command(self, method, **parameters):
        """Send a command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=START_S))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message):
        kind, content = message.get("method"), message.get("params", {})
        if kind == "Log.entryAdded":
            self.console.append(content["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled":
            self.console.append(str([one.get("value") for one in content["args"]]))
        elif kind == "Runtime.exceptionThrown":
            self.console.append(str(content["exceptionDetails"]))
        elif kind == "Network.requestWillBeSent":
            self.asked.append(content["request"]["url"])

    def run(self, script):
        """Return the value of an expression."""
        found = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, condition):
        """Return once an expression is true."""
        end = time.monotonic() + START_S
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {condition}")
            time.sleep(0.05)

    def resize(self, width, height=900):
        """Show the page as wide as a window or phone, in pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def drop(self, content, name, kind):
        """Drop a file on the page."""
        text = base64.b64encode(content).decode()
        self.run(f"""(() => {{
            const bytes = Uint8Array.from(atob("{text}"), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "{name}", {{type: "{kind}"}}));
            const event = {{dataTransfer: transfer, bubbles: true, cancelable: true}};
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", event));
        }})()""")

    def picture(self, path):
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

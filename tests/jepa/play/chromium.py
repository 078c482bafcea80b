"""A headless Chromium, driven over its DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --mute-audio "
    "--disable-background-networking --disable-component-update --remote-debugging-port=0"
)
WAIT = 120.0  # seconds


def find() -> str | None:
    """The program; None if it is not installed (Debian: apt install chromium)."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page that Chromium shows."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(WAIT))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self, expression: str) -> Any:
        """The value of a JavaScript expression; of a promise, once it is kept."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = WAIT) -> Any:
        """Until the expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.read(expression)):
            assert time.monotonic() < end, (
                f"waited in vain for {expression}: {self.read('JSON.stringify(play.header)')}"
            )
            time.sleep(0.05)
        return value

    def key(self, code: str, key: str, *, is_down: bool) -> None:
        kind = "rawKeyDown" if is_down else "keyUp"
        self.call("Input.dispatchKeyEvent", type=kind, code=code, key=key)

    def tap(self, code: str, key: str) -> None:
        self.key(code, key, is_down=True)
        self.key(code, key, is_down=False)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click into an element, at shares of its width and height."""
        box = self.read(
            f"(b => [b.x, b.y, b.width, b.height])(document.querySelector('{selector}').getBoundingClientRect())"
        )
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def pixels(self, canvas: str) -> list[int]:
        """RGBA of a canvas, row by row."""
        size = "c.width, c.height"
        return self.read(
            f"(c => [...c.getContext('2d').getImageData(0, 0, {size}).data])(document.getElementById('{canvas}'))"
        )

    def shot(self) -> bytes:
        """What the page looks like, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(self.shot())


@contextmanager
def browse(url: str, profile: Path, width: int = 1240, height: int = 860, flags: str = "") -> Iterator[Tab]:
    """Chromium at an address, with a profile of its own."""
    program = find()
    assert program is not None
    command = [
        program,
        *FLAGS.split(),
        *flags.split(),
        f"--window-size={width},{height}",
        f"--user-data-dir={profile}",
        url,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port(profile / "DevToolsActivePort")
            with connect(_address(port), max_size=None, compression=None, open_timeout=WAIT) as socket:
                tab = Tab(socket)
                tab.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                yield tab
        finally:
            process.terminate()
            process.wait(WAIT)


def _port(file: Path) -> int:
    end = time.monotonic() + WAIT
    while not (file.is_file() and "\n" in file.read_text()):
        assert time.monotonic() < end, "Chromium does not start"
        time.sleep(0.1)
    return int(file.read_text().split()[0])


def _address(port: int) -> str:
    """Of the first tab."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=WAIT) as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")

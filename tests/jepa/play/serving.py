"""A server in a thread, and pages that are no browsers: sockets of the websockets library."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from jepa.play.game import Game
from jepa.play.server import Address, listen, make_server

WAIT = 60.0  # seconds; machines may be busy


@contextmanager
def serving(game: Game, host: str = "127.0.0.1") -> Iterator[Address]:
    """`game` at a free port, until the end of the block."""
    address = listen(host, 0)
    server = make_server(game, address)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def wait_for(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def get(address: Address, path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=WAIT)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


class Page:
    """A page without a browser."""

    def __init__(self, port: int, query: str = "", **settings: Any) -> None:
        url = f"ws://127.0.0.1:{port}/play{query}"
        self._open = ExitStack()
        opening = connect(url, open_timeout=WAIT, compression=None, **settings)
        self.socket: ClientConnection = self._open.enter_context(opening)
        self.texts: list[dict[str, Any]] = []
        self.frames = 0
        self.answers = True

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def receive(self) -> dict[str, Any] | None:
        """The header of the next frame; None for a text, which is kept."""
        data = self.socket.recv(WAIT)
        if isinstance(data, str):
            self.texts.append(json.loads(data))
            return None
        self.frames += 1
        if self.answers:
            self.send(drawn=self.frames)
        return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])

    def frame(self, condition: Any = lambda header: True) -> dict[str, Any]:
        """The header of the next frame that meets a condition."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            header = self.receive()
            if header is not None and condition(header):
                return header
        raise AssertionError("no such frame came")

    def text(self, key: str) -> Any:
        """What the next text with this key says."""
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            for number, text in enumerate(self.texts):
                if key in text:
                    return self.texts.pop(number)[key]
            self.receive()
        raise AssertionError(f"no {key} came")

    def repeat(self, text: str, times: int) -> None:
        """Send a text again and again, and read what comes."""
        for _ in range(times):
            self.socket.send(text)
            self.receive()

    def close(self) -> None:
        self._open.close()

"""The server of `jepa play`: a page and a websocket on this machine, and nowhere else unless that is asked for.

GET /            the page; with the token in its address, where there is one
GET /play.js     and /play.css
WS  /play        see messages.py

On this machine alone, requests must name it (Host: localhost), so that no web page reaches the server under a name of
its own. On other addresses a random token must be in the address. A websocket must come from the page itself (Origin).
"""

import asyncio
import hmac
import ipaddress
import logging
import secrets
import signal
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from jepa.config import UserError
from jepa.play.game import Game
from jepa.play.hub import Hub
from jepa.play.messages import MAX_BYTES

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent
FILES = {"/": "page.html", "/play.js": "play.js", "/play.css": "play.css"}
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 2  # in which pages are told that the server ends


@dataclass(frozen=True)
class Address:
    """A socket that listens. `token`: what pages must know; None on this machine alone."""

    socket: socket.socket
    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        query = f"/?token={self.token}" if self.token else ""
        return f"http://{name}:{self.port}{query}"


def listen(host: str, port: int) -> Address:
    """Listen at an address; port 0 is any free one.

    Raises:
        UserError: the port is in use or may not be used, or there is no such address on this machine.
    """
    try:
        family, _, _, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, OverflowError, UnicodeError):
        raise UserError(f"--host {host}: no such address; leave it out for this machine alone (127.0.0.1)") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(at)
        listening.listen()
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} at {host} cannot be used ({error.strerror}); give another one with --port, or any free one "
            "with --port 0"
        ) from None
    token = None if ipaddress.ip_address(at[0]).is_loopback else secrets.token_urlsafe(16)
    return Address(listening, host, listening.getsockname()[1], token)


class Guard:
    """Lets through who names this machine, or knows the token; websockets also only from the page itself."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] in ("http", "websocket") else None
        if problem is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, problem)(scope, receive, send)
        else:
            await PlainTextResponse(problem + "\n", 403)(scope, receive, send)

    def _problem(self, scope: Scope) -> str | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.token is None and host.rpartition(":")[0] not in LOCAL_NAMES and host not in LOCAL_NAMES:
            return "open the page as http://localhost:PORT"
        is_socket = scope["type"] == "websocket"
        if is_socket and "origin" in headers and urlsplit(headers["origin"]).netloc != host:
            return "this page is of another server"
        if self.token is None or not (is_socket or scope["path"] == "/"):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return "open the address that `jepa play` printed: it ends in a token"
        return None


def make_app(game: Game, token: str | None, threads: int, fail: Callable[[BaseException], None]) -> ASGIApp:
    """The ASGI application: the page, and a websocket on which `game` is played. A defect goes to `fail`."""
    hubs: list[Hub] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        hubs.append(hub := Hub(game, threads))
        playing = asyncio.create_task(hub.play())
        playing.add_done_callback(ended)
        yield
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await hub.close()

    def ended(playing: "asyncio.Task[None]") -> None:
        if not playing.cancelled() and (error := playing.exception()) is not None:
            fail(error)

    async def play(socket: WebSocket) -> None:
        await hubs[-1].serve(socket)

    def page(path: str) -> Route:
        async def send(_: Any) -> FileResponse:
            return FileResponse(PAGE / FILES[path], headers=HEADERS)

        return Route(path, send)

    routes = [*map(page, FILES), WebSocketRoute("/play", play)]
    return Guard(Starlette(routes=routes, lifespan=lifespan), token)


class Server(uvicorn.Server):
    """Ends at a signal and remembers which; the second ends it at once. A defect of the game ends it, too."""

    received: signal.Signals | None = None
    defect: BaseException | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def fail(self, error: BaseException) -> None:
        """End the server: pages that stand still would not tell of it."""
        self.defect = error
        self.should_exit = True

    def _receive(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self.received = signal.Signals(number)


def make_server(game: Game, address: Address, threads: int = 1) -> Server:
    """The server, which `serve` or a thread runs."""
    config = uvicorn.Config(
        make_app(game, address.token, threads, lambda error: server.fail(error)),
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=MAX_BYTES,
        ws_per_message_deflate=False,  # pictures are compressed already
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config)
    return server


def serve(game: Game, address: Address, *, threads: int = 1, open_browser: bool = False) -> signal.Signals | None:
    """Serve until Ctrl-C or SIGTERM, which is returned."""
    logger.info(f"play at {address.url} (Ctrl-C ends)")
    if address.token is None:
        port = address.port
        logger.info(
            f"  from another machine: ssh -L {port}:localhost:{port} THIS_MACHINE, then http://localhost:{port}"
        )
    else:
        logger.warning("  who knows this address can play; the connection is not encrypted")
    if open_browser:
        with suppress(webbrowser.Error):
            webbrowser.open(address.url)
    server = make_server(game, address, threads)
    server.run(sockets=[address.socket])
    if server.defect is not None:
        raise server.defect
    return server.received

"""Who watches, who drives, and the loop that makes frames for them.

The first page drives and the others watch; when it leaves, the next one drives. Frames are made in one thread, at the
wanted rate, while anybody watches. A page says which frames it has drawn, and at most `WINDOW` are under way to it, so
that none wait in the buffers of sockets: a slow page gets the newest one when it is ready for it, and the others are
dropped.
"""

import asyncio
import json
import logging
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError
from starlette.websockets import WebSocket

from jepa.play.game import Game
from jepa.play.messages import Inputs, Message, Stats

logger = logging.getLogger(__name__)

MAX_VIEWERS = 64
WINDOW = 3  # frames under way: at 30 a second, for connections that take up to 100 ms there and back
MAX_MESSAGES = 64  # of a page that are read between two frames; further ones wait in its socket
MAX_BAD = 20  # messages that are not understood, before a socket is closed
MAX_TEXTS = 32  # that wait for a slow viewer
LOG_SECONDS = 10.0
TOO_MANY, BAD_MESSAGES = 1013, 1008  # codes of RFC 6455 and its registry


class Viewer:
    """A page. Attributes: dropped, frames that it was too slow for."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.dropped = 0
        self._sent = 0
        self._drawn = 0
        self._frame: bytes | None = None
        self._texts: deque[str] = deque(maxlen=MAX_TEXTS)
        self._is_ready = asyncio.Event()

    def offer(self, frame: bytes) -> None:
        """A frame, in place of one that it has not been sent yet."""
        self.dropped += self._frame is not None
        self._frame = frame
        self._is_ready.set()

    def has_drawn(self, count: int) -> None:
        """The page has drawn so many frames in all."""
        self._drawn = min(max(self._drawn, count), self._sent)
        self._is_ready.set()

    def send(self, message: dict[str, Any]) -> None:
        """A text message; of many, the oldest are dropped."""
        self._texts.append(json.dumps(message))
        self._is_ready.set()

    async def send_forever(self) -> None:
        """Send what there is, when the socket takes it."""
        while True:
            await self._is_ready.wait()
            self._is_ready.clear()
            while self._texts:
                await self.socket.send_text(self._texts.popleft())
            if self._frame is not None and self._sent - self._drawn < WINDOW:
                frame, self._frame = self._frame, None
                self._sent += 1
                await self.socket.send_bytes(frame)


class Hub:
    """Viewers of a game."""

    def __init__(self, game: Game, threads: int = 1) -> None:
        self.game = game
        self.frames = 0
        self.measured: list[Stats] = []
        self._inputs = Inputs()
        self._viewers: list[Viewer] = []
        self._is_watched = asyncio.Event()
        self._frame_made = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, "play", initializer=_use_threads, initargs=(threads,))
        self._logged = time.monotonic()

    async def play(self) -> None:
        """Make frames until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._is_watched.wait()
            frame, notices = await loop.run_in_executor(self._worker, self.game.frame, self._inputs.take())
            self.frames += 1
            for viewer in self._viewers:
                viewer.offer(frame)
                for notice in notices:
                    viewer.send({"notice": notice})
            self._frame_made.set()
            self._frame_made = asyncio.Event()
            period = 1 / self.game.fps
            due = max(due + period, loop.time() - period)  # a late frame is made up for, several are not
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def close(self) -> None:
        """End recordings and the thread."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self.game.close)
        self._worker.shutdown()
        if self.measured:
            logger.info(measurements(self.measured))

    async def serve(self, socket: WebSocket) -> None:
        """One page, from its opening to its end."""
        await socket.accept()
        if len(self._viewers) >= MAX_VIEWERS:
            await socket.close(TOO_MANY, f"{MAX_VIEWERS} pages watch already")
            return
        viewer = Viewer(socket)
        self._viewers.append(viewer)
        viewer.send({"hello": self.game.about(), "drives": viewer is self._viewers[0]})
        sender = asyncio.create_task(viewer.send_forever())
        self._is_watched.set()
        try:
            await self._receive(viewer)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)  # how a socket broke does not matter
            self._leave(viewer)

    async def _receive(self, viewer: Viewer) -> None:
        """Read what a page says until it closes, or says too much that is not understood."""
        bad, read = 0, 0
        made = self._frame_made
        while (event := await viewer.socket.receive())["type"] == "websocket.receive":
            if made is not self._frame_made:
                made, read = self._frame_made, 0
            read += 1
            if read > MAX_MESSAGES:
                await made.wait()
            problem = self._handle(viewer, event.get("text"))
            if problem is None:
                continue
            bad += 1
            viewer.send({"notice": problem})
            if bad >= MAX_BAD:
                await viewer.socket.close(BAD_MESSAGES, "too many messages that are not understood")
                return

    def _handle(self, viewer: Viewer, text: str | None) -> str | None:
        """Take over a message; what is wrong with it, if anything is."""
        if text is None:
            return "expected JSON text, found a binary message"
        try:
            message = Message.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the message"
            return f"{where}: {first['msg']}"
        if message.drawn is not None:
            viewer.has_drawn(message.drawn)
        if viewer is not self._viewers[0]:
            return None
        self._inputs.add(message)
        if message.stats is not None:
            self._note(message.stats)
        return None

    def _leave(self, viewer: Viewer) -> None:
        was_driving = viewer is self._viewers[0]
        self._viewers.remove(viewer)
        if viewer.dropped:
            logger.info(f"a page left; {viewer.dropped} frames were dropped, for it was too slow")
        if not self._viewers:
            self._is_watched.clear()
        elif was_driving:
            self._viewers[0].send({"drives": True})
        if was_driving:
            self._inputs.release()

    def _note(self, stats: Stats) -> None:
        self.measured = [*self.measured[-3599:], stats]
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            logger.info(measurements(self.measured[-round(LOG_SECONDS) :]))


def measurements(stats: list[Stats]) -> str:
    """Medians of what the driver's browser measured, as a line."""
    line = f"{statistics.median(s.fps for s in stats):.1f} frames/s in the browser"
    latencies = [s.latency_ms for s in stats if s.latency_ms is not None]
    if latencies:
        line += f", {statistics.median(latencies):.0f} ms from input to picture"
    return line


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)

"""The runs on a page, of which one is played: applies what a person did, takes a step, and makes a frame of it."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from jepa.config import UserError
from jepa.play.config import PlayConfig
from jepa.play.messages import Encoded, Inputs, encode_picture, pack
from jepa.play.session import Session

logger = logging.getLogger(__name__)

MAX_EVENTS = 16  # that wait for their step


class Game:
    """All of a page but its sockets. Not for several threads at once.

    Args:
        sessions: one for each run, at least one.
    """

    def __init__(self, sessions: Sequence[Session], config: PlayConfig) -> None:
        self.sessions = sessions
        self.fps = config.fps
        self.active = 0
        self._truth = config.truth
        self._temperature = config.temperature
        self._keep_grounded = config.keep_grounded
        self._goal_picture: tuple[np.ndarray, Encoded] | None = None
        self._events: list[int] = []  # numbers of those to come, one a step
        self._notices: list[str] = []

    @property
    def session(self) -> Session:
        return self.sessions[self.active]

    def about(self) -> dict[str, Any]:
        """What the page needs once."""
        return {"runs": [session.about() for session in self.sessions], "active": self.active}

    def frame(self, inputs: Inputs) -> tuple[bytes, list[str]]:
        """Apply the inputs, take one imagined step, and return the frame and notices, one line each."""
        began = time.perf_counter()
        self._apply(inputs)
        session = self.session
        self._try(lambda: self._step(session, inputs.axes))
        picture = session.picture()
        shows_truth = self._truth and session.ground.has_truth
        drift = session.drift(picture) if shows_truth else None
        pictures = {"imagined": encode_picture(picture)}
        if shows_truth:
            pictures["true"] = encode_picture(session.ground.picture())
        if session.goal is not None:
            pictures["goal"] = self._encoded_goal(session.goal.image)
        self._record_frame(picture)
        header = {
            "run": self.active,
            "seq": inputs.seq,
            "step": session.steps,
            "fps": self.fps,
            "truth": shows_truth,
            "temperature": self._temperature,
            "keep_grounded": self._keep_grounded,
            "drift": drift and asdict(drift),
            "goal": session.goal_info(),
            "recording": session.recorder.frames,
            "ended": session.has_ended,
            "ms": round(1000 * (time.perf_counter() - began), 2),
        }
        notices, self._notices = self._notices, []
        return pack(header, pictures), notices

    def close(self) -> list[str]:
        """End recordings; what was written."""
        for session in self.sessions:
            self._try(lambda session=session: session.record(False))
        notices, self._notices = self._notices, []
        return notices

    def _step(self, session: Session, axes: tuple[float, ...]) -> str | None:
        event = self._events.pop(0) if self._events else 0
        return session.step(axes, event=event, temperature=self._temperature, keep_grounded=self._keep_grounded)

    def _apply(self, inputs: Inputs) -> None:
        settings = inputs.settings
        self.fps = settings.get("fps", self.fps)
        self._truth = settings.get("truth", self._truth)
        self._temperature = settings.get("temperature", self._temperature)
        self._keep_grounded = settings.get("keep_grounded", self._keep_grounded)
        if (run := settings.get("run", self.active)) != self.active and run < len(self.sessions):
            self._try(lambda: self.session.record(False))
            self.active = run
            self._events.clear()
        session = self.session
        numbers = [event + 1 for event in sorted(inputs.events) if event < len(session.events)]
        self._events = [*self._events, *numbers][:MAX_EVENTS]
        if "reset" in inputs.buttons or session.recorder.is_full:
            self._try(lambda: session.record(False))
        if "reset" in inputs.buttons:
            session.reset()
        if "reground" in inputs.buttons:
            session.reground()
        if "stop" in inputs.buttons:
            session.stop()
        if (goal := settings.get("goal")) is not None:
            point = None if goal == "draw" else goal
            self._try(lambda: session.set_goal(point))
        if (record := settings.get("record")) is not None:
            self._try(lambda: session.record(record))

    def _try(self, work: Callable[[], str | None]) -> None:
        """What it says is a notice, and so is what is wrong with it."""
        try:
            notice = work()
        except UserError as error:
            notice = str(error)
        if notice:
            logger.info(notice)
            self._notices.append(notice)

    def _encoded_goal(self, image: np.ndarray) -> Encoded:
        if self._goal_picture is None or self._goal_picture[0] is not image:
            self._goal_picture = (image, encode_picture(image))
        return self._goal_picture[1]

    def _record_frame(self, picture: np.ndarray) -> None:
        session = self.session
        if session.recorder.frames is None:
            return
        pictures = [picture]
        if session.ground.has_truth:
            pictures.append(session.ground.picture())
        session.recorder.add_picture(pictures, self.fps)

"""The page in a real browser: keys, a clicked goal and an event change the pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jepa.play.game import Game
from tests.jepa.play.chromium import Tab, browse, find
from tests.jepa.play.dot_world import SIDE, make_config, make_session
from tests.jepa.play.serving import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(find() is None, reason="no Chromium is installed (Debian: apt install chromium)"),
]


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    session = make_session(tmp_path / "played")
    knowing = make_session(tmp_path / "knowing", events=session.events)
    game = Game([session, knowing], make_config("fps=30"))
    with serving(game) as address, browse(address.url, tmp_path / "profile") as tab:
        tab.wait("window.play && play.drives && play.frames > 5")
        yield tab


def dot(tab: Tab, canvas: str = "imagined") -> tuple[float, float]:
    """Where the red of a picture is brightest, in widths."""
    red = np.array(tab.pixels(canvas)).reshape(SIDE, SIDE, 4)[..., 0]
    y, x = np.unravel_index(red.argmax(), red.shape)
    return float(x) / SIDE, float(y) / SIDE


def test_keys_goals_and_events_change_the_pictures(tab: Tab) -> None:
    assert tab.read("document.title") == "jepa play" and "dot" in tab.read(
        "document.getElementById('runs').textContent"
    )
    tab.read("setStrength(0.05)")
    x, y = dot(tab)
    way = ("ArrowUp", -1) if y > 0.5 else ("ArrowDown", 1)
    tab.key(way[0], way[0], is_down=True)
    tab.wait("play.header.seq > 0 && play.latency > 0")
    tab.wait(f"play.header.step > {tab.read('play.header.step')} + 8")
    tab.key(way[0], way[0], is_down=False)
    after = dot(tab)
    assert abs(after[0] - x) < 0.03 and way[1] * (after[1] - y) > 0.04
    _sees_the_truth(tab)
    _clicks_a_goal(tab)
    _lets_the_door_close(tab)


def _sees_the_truth(tab: Tab) -> None:
    assert tab.read("document.getElementById('true-figure').hidden")
    tab.tap("KeyT", "t")
    tab.wait("play.header.truth && !document.getElementById('true-figure').hidden && play.header.drift")
    tab.tap("KeyR", "r")
    tab.wait("play.header.drift.latent < 1e-4")
    assert np.allclose(dot(tab), dot(tab, "true"), atol=0.04)


def _clicks_a_goal(tab: Tab) -> None:
    x, y = dot(tab)
    goal = (0.2 if x < 0.5 else 0.8, 0.3 if y > 0.5 else 0.7)
    tab.click("#imagined-screen", *goal)
    tab.wait("play.header.goal && play.header.goal.path.length")
    tab.wait("play.header.goal.status === 'reached'")
    tab.wait("play.header.pictures.some(([name]) => name === 'goal')")
    assert np.allclose(dot(tab), goal, atol=0.1)


def _lets_the_door_close(tab: Tab) -> None:
    before = np.array(tab.pixels("true"))
    tab.click("#event-0")
    tab.wait("play.frames > 0")
    frames = tab.read("play.frames")
    tab.wait(f"play.frames > {frames} + 5")
    assert (np.array(tab.pixels("true")) != before).sum() > 10
    tab.click("#runs button:nth-child(2)")
    tab.wait("play.header.run === 1 && play.header.step > 3")
    assert np.hypot(*np.subtract(dot(tab), 0.5)) > 0.05
    tab.tap("Digit1", "1")
    tab.wait(f"play.frames > {tab.read('play.frames')} + 5")
    assert np.allclose(dot(tab), 0.5, atol=0.03)  # what the first event does in that model


def test_a_second_page_watches(tab: Tab) -> None:
    tab.wait("document.getElementById('status').textContent.startsWith('you drive')")
    watching = "new Promise(done => { const s = new WebSocket('ws://' + location.host + '/play'); "
    watching += "s.onmessage = e => typeof e.data === 'string' && done(JSON.parse(e.data).drives); })"
    assert tab.read(watching) is False

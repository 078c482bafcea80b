"""The server under load and with bad input: viewers, broken sockets, floods, strangers, ports in use."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from jepa.config import UserError
from jepa.play.game import Game
from jepa.play.hub import WINDOW
from jepa.play.server import Address, listen, make_server
from tests.jepa.play.dot_world import make_config, make_session
from tests.jepa.play.serving import WAIT, Page, get, serving, wait_for

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def game(tmp_path: Path) -> Game:
    return Game([make_session(tmp_path / "a"), make_session(tmp_path / "b")], make_config("fps=60"))


@pytest.fixture
def address(game: Game) -> Iterator[Address]:
    with serving(game) as address:
        yield address


def test_the_page_loads_nothing_from_elsewhere(address: Address) -> None:
    for path in ("/", "/play.js", "/play.css"):
        status, text = get(address, path)
        assert status == 200 and "http://" not in text and "https://" not in text and "//cdn" not in text
    assert get(address, "/nothing")[0] == 404
    assert get(address, "/../server.py")[0] == 404


def test_keys_move_the_imagined_world(address: Address) -> None:
    page = Page(address.port)
    hello = page.text("hello")
    assert [run["world"] for run in hello["runs"]] == ["two-rooms", "two-rooms"] and hello["runs"][0]["clickable"]
    page.send(axes=[0, 0.1, 0], seq=7, truth=True)
    header = page.frame(lambda header: header["seq"] == 7 and header["truth"])
    assert header["drift"]["latent"] >= 0 and [picture[0] for picture in header["pictures"]] == ["imagined", "true"]
    page.send(goal=[0.2, 0.2])
    goal = page.frame(lambda header: header["goal"] is not None)["goal"]
    assert goal["point"] == [0.2, 0.2]
    page.send(run=1)
    assert page.frame(lambda header: header["run"] == 1)["goal"] is None
    page.close()


def test_the_first_of_ten_viewers_drives_and_the_next_takes_over(address: Address) -> None:
    pages = [Page(address.port) for _ in range(10)]
    drives = [page.text("hello") and page.texts[-1:] for page in pages]
    assert len(drives) == 10
    for page in pages[1:]:
        page.send(fps=11, seq=99)  # nobody listens to viewers
    pages[0].send(fps=50, seq=5)
    for page in pages:
        assert page.frame(lambda header: header["seq"] == 5)["fps"] == 50
    pages[0].close()
    assert pages[1].text("drives") is True
    pages[1].send(fps=40)
    for page in pages[1:]:
        assert page.frame(lambda header: header["fps"] == 40)["seq"] in (0, 5)
        page.close()


def test_a_socket_that_breaks_in_the_middle_stops_nobody(address: Address) -> None:
    watching = Page(address.port)
    watching.frame()
    for _ in range(3):
        broken = Page(address.port)
        broken.frame()
        broken.socket.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
    driver = watching.frame()["step"]
    assert watching.frame(lambda header: header["step"] > driver + 5)
    watching.close()
    again = Page(address.port)
    assert again.frame()
    again.close()


def test_a_flood_of_keys_costs_nothing(address: Address) -> None:
    page = Page(address.port)
    page.frame()
    for number in range(1, 3001):
        page.send(axes=[(number % 200) / 200 - 0.5, 0, 0], seq=number)
    assert page.frame(lambda header: header["seq"] == 3000)
    page.close()


def test_a_page_that_reads_nothing_gets_the_newest_frame_later(address: Address, game: Game) -> None:
    """Its frames are dropped: they wait neither in the server, nor in sockets, nor for the others."""
    slow = Page(address.port)
    slow.answers = False
    quick = Page(address.port)
    first = [slow.frame()["step"] for _ in range(WINDOW)]
    last = quick.frame(lambda header: header["step"] >= first[-1] + 40)["step"]
    slow.send(drawn=WINDOW)
    assert slow.frame()["step"] >= last
    quick.close()
    slow.close()


def test_messages_that_make_no_sense_are_answered_and_end_at_last(address: Address) -> None:
    page = Page(address.port)
    page.text("hello")
    page.socket.send("no JSON")
    assert "JSON" in page.text("notice")
    page.send(axes=[5, 0, 0])
    assert page.text("notice").startswith("axes.0")
    page.socket.send(b"\x00\x01")
    assert "binary" in page.text("notice")
    with pytest.raises(ConnectionClosed) as closed:
        page.repeat("[]", 200)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_message_that_is_too_large_closes_the_socket(address: Address) -> None:
    page = Page(address.port)
    page.frame()
    with pytest.raises(ConnectionClosed):
        page.repeat(json.dumps({"axes": [0] * 5000}), 1000)
    page = Page(address.port)
    assert page.frame()
    page.close()


def test_what_cannot_be_done_is_a_notice(address: Address, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    page = Page(address.port)
    page.send(record=True)
    assert str(tmp_path / "a") in page.text("notice")
    page.close()


def test_a_recording_is_written_when_the_server_ends(game: Game, tmp_path: Path) -> None:
    with serving(game) as address:
        page = Page(address.port)
        page.send(record=True)
        page.frame(lambda header: (header["recording"] or 0) > 2)
    assert (tmp_path / "a" / "played-000.mp4").is_file() and (tmp_path / "a" / "shards" / "manifest.json").is_file()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "[::2]:80", ""])
def test_other_names_than_this_machines_are_refused(address: Address, host: str) -> None:
    assert get(address, "/", Host=host)[0] == 403
    assert get(address, "/", Host="localhost:9000")[0] == 200  # through a tunnel


def test_a_websocket_of_another_page_is_refused(address: Address) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Page(address.port, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    page = Page(address.port, origin=f"http://127.0.0.1:{address.port}")
    page.close()


def test_other_addresses_need_the_token(game: Game) -> None:
    with serving(game, "0.0.0.0") as address:
        assert address.token is not None and len(address.token) >= 20
        assert get(address)[0] == 403 and get(address, "/?token=wrong")[0] == 403
        assert get(address, f"/?token={address.token}", Host="any.name")[0] == 200
        for query in ("", "?token=", f"?token={address.token[:-1]}"):
            with pytest.raises(InvalidStatus):
                Page(address.port, query)
        page = Page(address.port, f"?token={address.token}")
        assert page.frame()
        page.close()


def test_this_machine_alone_is_the_default_and_needs_no_token() -> None:
    address = listen("127.0.0.1", 0)
    assert address.token is None and address.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(UserError, match=f"port {address.port} .*--port"):
        listen("127.0.0.1", address.port)
    address.socket.close()
    with pytest.raises(UserError, match="no such address"):
        listen("no.such.name.invalid", 0)


def test_a_defect_of_the_game_ends_the_server(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(game, "frame", lambda inputs: 1 / 0)
    address = listen("127.0.0.1", 0)
    server = make_server(game, address)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    page = Page(address.port)
    thread.join(WAIT)
    assert not thread.is_alive() and isinstance(server.defect, ZeroDivisionError)
    page.close()


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from jepa.play.game import Game
from jepa.play.server import listen, serve
from tests.jepa.play.dot_world import make_config, make_session
address = listen("127.0.0.1", 0)
print(address.port, flush=True)
received = serve(Game([make_session(Path({folder!r}))], make_config()), address)
print("ended by", received.name, flush=True)
"""


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_server_and_its_recordings(tmp_path: Path, number: signal.Signals) -> None:
    paths = [str(ROOT / part) for part in ("", "data", "probes")]
    script = SCRIPT.format(paths=paths, folder=str(tmp_path / "out"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            _record_until(process, number)
        finally:
            process.kill()
        assert process.returncode == 0
    assert (tmp_path / "out" / "played-000.mp4").is_file()


def _record_until(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Record some frames, and end the server by a signal while a page is open."""
    assert process.stdout is not None
    port = int(process.stdout.readline())
    pages: list[Page] = []

    def opens() -> bool:
        with suppress(OSError):
            pages.append(Page(port))
        return bool(pages)

    wait_for(opens)
    pages[0].send(record=True)
    pages[0].frame(lambda header: (header["recording"] or 0) > 1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=WAIT)
    pages[0].close()
    assert f"ended by {number.name}" in out

"""Frames a second and latency of `jepa play` in a headless Chromium, both on this machine.

    python -m tests.bench.play_browser runs/demo runs/two-rooms [--picture docs/images/play.png] [--gif play.gif]

For each run: keys change all the time for some seconds; first the imagined world alone, then with the true one beside
it, then while a goal is planned to. Prints the frames that the browser drew a second, and the median time from an input
to the picture that shows it.
"""

import argparse
import io
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.jepa.play.chromium import Tab, browse

SECONDS = 6.0  # of each measurement
KEYS = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
HOLD = 0.35  # seconds of a key
GIF_SIDE = 540  # pixels of its width
GOALS = ((0.75, 0.3), (0.3, 0.7), (0.7, 0.75), (0.25, 0.25))


def measure(tab: Tab) -> tuple[float, float]:
    """Frames a second and median latency in ms, while keys are pressed."""
    time.sleep(1.0)
    tab.read("play.latencies.length = 0")
    frames, began = tab.read("play.frames"), time.perf_counter()
    number = 0
    while time.perf_counter() - began < SECONDS:
        key = KEYS[number % len(KEYS)]
        press(tab, key, HOLD)
        number += 1
    rate = (tab.read("play.frames") - frames) / (time.perf_counter() - began)
    return rate, statistics.median(tab.read("play.latencies"))


def press(tab: Tab, key: str, seconds: float) -> None:
    tab.key(key, key, is_down=True)
    time.sleep(seconds)
    tab.key(key, key, is_down=False)


def pursue(tab: Tab) -> float:
    """Frames a second while goals are planned to, one after the other."""
    frames, began = tab.read("play.frames"), time.perf_counter()
    for goal in GOALS:
        tab.click("#imagined-screen", *goal)
        time.sleep(SECONDS / len(GOALS))
    return (tab.read("play.frames") - frames) / (time.perf_counter() - began)


def show(name: str, rate: float, latency: float | None = None) -> None:
    line = f"{name:30} {rate:5.1f} frames/s"
    print(line + ("" if latency is None else f", {latency:4.0f} ms from input to picture"), flush=True)  # noqa: T201


def film(tab: Tab, path: Path) -> None:
    """A GIF of the page: driven, grounded, a goal."""
    pictures = []

    def shoot(count: int) -> None:
        for _ in range(count):
            data = io.BytesIO(tab.shot())
            picture = Image.open(data).convert("RGB")
            picture = picture.resize(
                (GIF_SIDE, round(GIF_SIDE * picture.height / picture.width)), Image.Resampling.LANCZOS
            )
            pictures.append(picture.quantize(48, dither=Image.Dither.NONE))

    tab.tap("KeyN", "n")
    for key in ("ArrowRight", "ArrowDown"):
        tab.key(key, key, is_down=True)
        shoot(6)
        tab.key(key, key, is_down=False)
    tab.tap("KeyR", "r")
    shoot(4)
    for goal in GOALS[:2]:
        tab.click("#imagined-screen", *goal)
        shoot(10)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=150, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--gif", type=Path)
    options = parser.parse_args()
    command = [sys.executable, "-u", "-m", "jepa.cli", "play", *options.runs, "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        assert server.stdout is not None
        url = next(line.split()[2] for line in server.stdout if line.startswith("play at "))
        with browse(url, Path(profile)) as tab:
            tab.wait("window.play && play.drives && play.frames > 5")
            for number, run in enumerate(options.runs, 1):
                tab.click(f"#runs button:nth-child({number})")
                show(run, *measure(tab))
                tab.tap("KeyT", "t")
                show("  with the true world", *measure(tab))
                if tab.read("run.clickable"):
                    show("  planning to a goal", pursue(tab))
                if number == 1 and options.picture:
                    tab.screenshot(options.picture)
                if number == 1 and options.gif:
                    film(tab, options.gif)
                tab.tap("KeyT", "t")
                tab.wait("!play.header.truth")
        server.send_signal(signal.SIGINT)
        print(server.stdout.read())  # noqa: T201


if __name__ == "__main__":
    main()

"""take-cover: ViZDoom's scenario, in which a player walks along a wall and dodges fireballs for as long as it lives.

World Models (1803.10122) learns it from random episodes, in its own dreams. As there, the player only moves sideways,
and each tic (1/35 s) that it survives is rewarded by 1. Monsters appear along the opposite wall, ever more of them.

    action [1]   below -1/3: to the left; above 1/3: to the right; else it stands. Held for 4 tics, so fps is 8.75
    state [4]    agent.y, the place along the wall in Doom's units; health, 100 at the start; reward, the tics that were
                 survived in the last step (NaN before the first); terminated, 0 or 1
    ending       the player dies; the image is then that of the step before

Each episode is a game in a process of its own, which then plays the next one. Copies replay all actions. There are no
goals.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jepa_data.errors import DataError
from jepa_data.worlds.base import WorldBatch
from jepa_data.worlds.doom.view import resolution
from jepa_data.worlds.gym import REWARD, TERMINATED
from jepa_data.worlds.packages import needed

NAME = "take-cover"
EXTRA = "doom"
SCENARIO = "take_cover"
TICS = 4  # of a step
TICS_PER_SECOND = 35
STAND = 1 / 3  # actions up to this size; World Models
THREADS = 16  # that wait for engines


class TakeCoverBatch(WorldBatch):
    """Parallel episodes. The state is the seed of each game; the actions so far are stored for copies.

    Raises:
        DataError: ViZDoom or its scenario is not installed.
    """

    name = NAME
    action_size = 1
    action_names = ("right",)
    fps = TICS_PER_SECOND / TICS
    state_names = ("agent.y", "health", REWARD, TERMINATED)
    longest_repeat = 4

    def __init__(self, episodes: NDArray[np.integer], *, image_size: int = 64, seed: int = 0) -> None:
        super().__init__(episodes, image_size=image_size, seed=seed)
        self._restart([[] for _ in episodes])

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return np.array(rng.integers(2**31))

    def step(self, actions: NDArray[np.floating]) -> None:
        """Four tics of the games that have not ended, with actions [E, 1]."""
        pushed = np.asarray(actions, dtype=np.float64)[:, 0].tolist()
        going = [e for e, episode in enumerate(self._episodes) if not episode.terminated]
        list(_threads(os.getpid()).map(lambda e: self._episodes[e].step(pushed[e]), going))

    def states(self) -> NDArray[np.float64]:
        """Place, health, reward and end [E, 4] with the columns `state_names`."""
        return np.array([[*e.variables, e.reward, e.terminated] for e in self._episodes], np.float64)

    def terminated(self) -> NDArray[np.bool_]:
        return np.array([episode.terminated for episode in self._episodes], dtype=bool)

    def render(self) -> NDArray[np.uint8]:
        return np.stack([episode.image for episode in self._episodes])

    def take(self, index: NDArray[np.intp]) -> Self:
        """New games with the seeds of the chosen ones, which replay all actions."""
        other = super().take(index)
        other._restart([self._episodes[i].actions for i in index])
        return other

    def _restart(self, actions: list[list[float]]) -> None:
        """Begin a game for each seed, and replay its actions."""
        games = _idle_games(self.image_size, len(actions), os.getpid())
        begun = zip(games, repeat(self.image_size), self.state.tolist(), actions, strict=False)
        self._episodes = list(_threads(os.getpid()).map(lambda each: _Episode(*each), begun))
        weakref.finalize(self, _release, self._episodes)


class _Episode:
    """An episode, its game until it ends, and what was last seen of it."""

    image: NDArray[np.uint8]
    variables: list[float]

    def __init__(self, game: "_Game", image_size: int, seed: int, actions: list[float]) -> None:
        self.game: _Game | None = game
        self.size = (image_size, image_size)
        self.actions: list[float] = []
        self.reward = np.nan
        game.engine.set_seed(seed)
        game.engine.new_episode()
        self._look(game.engine)
        for action in actions:
            self.step(action)

    @property
    def terminated(self) -> bool:
        return self.game is None

    def step(self, action: float) -> None:
        """Four tics, or fewer if the player dies."""
        assert self.game is not None
        self.actions.append(action)
        engine = self.game.engine
        self.reward = engine.make_action([action < -STAND, action > STAND], TICS)
        if engine.is_episode_finished():
            self.release()
        else:
            self._look(engine)

    def release(self) -> None:
        """Let the game play another episode."""
        if self.game is not None:
            self.game.idle.append(self.game)
            self.game = None

    def _look(self, engine: Any) -> None:
        state = engine.get_state()
        self.image = np.asarray(Image.fromarray(state.screen_buffer).resize(self.size, Image.Resampling.BOX))
        self.variables = state.game_variables.tolist()


@dataclass(frozen=True)
class _Game:
    """A process of the engine, and where it waits between episodes."""

    engine: Any
    idle: "list[_Game]"


def _release(episodes: list[_Episode]) -> None:
    for episode in episodes:
        episode.release()


@cache
def _idle(image_size: int, process: int) -> list[_Game]:
    """Of a process: a fork would talk to its parent's games."""
    return []


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "take-cover")


def _idle_games(image_size: int, count: int, process: int) -> list[_Game]:
    """So many that wait; those that are missing are started side by side."""
    idle = _idle(image_size, process)
    games = [idle.pop() for _ in range(min(count, len(idle)))]
    if missing := count - len(games):
        folder = Path(tempfile.mkdtemp(prefix="doom-"))
        settings = [folder / f"{number}.ini" for number in range(missing)]
        with contextlib.chdir(folder):  # engines make a folder where they are started
            engines = list(_threads(process).map(partial(_engine, image_size), settings))
        atexit.register(_end, engines, folder)
        games += [_Game(engine, idle) for engine in engines]
    return games


def _end(engines: list[Any], folder: Path) -> None:
    for engine in engines:  # they write their settings into the folder
        engine.close()
    shutil.rmtree(folder, ignore_errors=True)


def _engine(image_size: int, settings: Path) -> Any:
    vizdoom = needed(NAME, "vizdoom", EXTRA)
    scenario = Path(vizdoom.scenarios_path) / f"{SCENARIO}.cfg"
    if not scenario.is_file():
        raise DataError(
            f"{NAME} needs ViZDoom's scenario {SCENARIO}, expected {scenario}: pip install --force-reinstall vizdoom"
        )
    game = vizdoom.DoomGame()
    game.load_config(str(scenario))
    game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
    game.set_doom_config_path(str(settings))  # it writes one
    game.set_screen_resolution(resolution(vizdoom, image_size))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_episode_timeout(0)
    game.set_available_buttons([vizdoom.Button.MOVE_LEFT, vizdoom.Button.MOVE_RIGHT])
    game.set_available_game_variables([vizdoom.GameVariable.POSITION_Y, vizdoom.GameVariable.HEALTH])
    try:
        game.init()
    except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomUnexpectedExitException) as error:
        raise DataError(f"{NAME}: the game does not start here: {error}") from error
    return game

"""A camera in a Doom map: images of the view of a player from a pose.

One game for each image size runs in a separate process, only for rendering. The player is moved to the position, in
whole units, and turned by the difference to the last angle; both take one step of the game. The map has no other
actors, so an image depends only on the pose.
"""

import contextlib
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jepa_data.errors import DataError
from jepa_data.spatial.fitted import nearest
from jepa_data.worlds.packages import needed

TURNS = 2**16  # an angle of Doom's is so many parts of a full turn
DEPTH_FIRST, DEPTH_STEP = 5.6, 7.15  # units: of level 0, and between two levels; right to 4 units at walls
LAST_LEVEL = 160
QUIET = 16  # steps of the game at its beginning, in which it ignores the player


class DoomView:
    """Renders views in a map.

    Args:
        wad: the map, as MAP01.
        size: of the square images in pixels; the game renders 4:3 at 90 degrees, which is scaled to the square.
    """

    has_depth: ClassVar[bool] = False

    def __init__(self, world: str, extra: str, wad: bytes, size: int) -> None:
        self._world = world
        self._size = size
        self._busy = threading.Lock()
        vizdoom = needed(world, "vizdoom", extra)
        self._folder = tempfile.TemporaryDirectory(prefix="doom-")
        folder = Path(self._folder.name)
        (folder / "map.wad").write_bytes(wad)
        self._game = game = vizdoom.DoomGame()
        weakref.finalize(self, end_game, game, self._folder)  # in this order: it writes its settings into the folder
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / "freedoom2.wad"))
        game.set_doom_scenario_path(str(folder / "map.wad"))
        game.set_doom_config_path(str(folder / "settings.ini"))  # otherwise it writes one where it was started
        game.set_doom_map("MAP01")
        game.set_screen_resolution(resolution(vizdoom, size))
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        for hide in ("hud", "weapon", "crosshair", "decals", "particles", "messages", "effects_sprites"):
            getattr(game, f"set_render_{hide}")(False)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_episode_timeout(0)
        game.set_seed(0)
        game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
        game.set_depth_buffer_enabled(self.has_depth)
        variables = vizdoom.GameVariable
        game.set_available_game_variables([variables.POSITION_X, variables.POSITION_Y, variables.ANGLE])
        try:
            with contextlib.chdir(folder):  # it makes a folder where it is started
                game.init()
        except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomUnexpectedExitException) as error:
            raise DataError(f"{world}: the game does not start here: {error}") from error
        game.make_action([0.0], QUIET)
        self._angle = _parts(self._state().game_variables[2])

    def draw(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3] from poses [E, 3]: x, y in units, and the angle in radians.

        Positions inside walls are not checked.
        """
        images = np.empty((len(poses), self._size, self._size, 3), np.uint8)
        with self._busy:
            for image, (x, y, angle) in zip(images, poses.tolist(), strict=True):
                image[:] = self._look(round(x), round(y), _parts(np.rad2deg(angle)))
        return images

    def _look(self, x: int, y: int, angle: int) -> NDArray[np.uint8]:
        image = Image.fromarray(self._moved(x, y, angle).screen_buffer)
        return np.asarray(image.resize((self._size, self._size), Image.Resampling.BOX))

    def _moved(self, x: int, y: int, angle: int) -> Any:
        """What the game shows of this place."""
        turn = (self._angle - angle + TURNS // 2) % TURNS - TURNS // 2  # to the right is positive
        self._game.send_game_command(f"warp {x} {y}")
        # The game takes the whole parts below: half a part more keeps rounding from losing one.
        self._game.make_action([(turn + 0.5) * 360 / TURNS], 1)
        self._angle = angle
        state = self._state()
        there = state.game_variables
        if (round(there[0]), round(there[1]), _parts(there[2])) != (x, y, angle):
            raise RuntimeError(
                f"{self._world}: the player was to be put to ({x}, {y}) at {angle * 360 / TURNS:.2f} degrees and is at "
                f"({there[0]:g}, {there[1]:g}) at {there[2]:.2f}"
            )
        return state

    def _state(self) -> Any:
        state = self._game.get_state()
        if state is None:
            raise RuntimeError(f"{self._world}: the game has ended")
        return state


class DoomDepthView(DoomView):
    """Renders the depth of views in a map, in a game of its own: images are those of a game without it.

    The game stores depth in 256 levels of DEPTH_STEP units, in order from DEPTH_FIRST; this was measured at walls. What
    is nearer wraps around, to levels that no view in a map of this size reaches.
    """

    has_depth = True

    def depth(self, poses: NDArray[np.float64]) -> NDArray[np.float16]:
        """Distances along the optical axis [E, size, size] in units, from poses [E, 3]; see `draw`."""
        depth = np.empty((len(poses), self._size, self._size), np.float16)
        with self._busy:
            for image, (x, y, angle) in zip(depth, poses.tolist(), strict=True):
                levels = self._moved(round(x), round(y), _parts(np.rad2deg(angle))).depth_buffer
                rows = nearest(0, levels.shape[0], levels.shape[0], levels.shape[0], self._size)
                columns = nearest(0, levels.shape[1], levels.shape[1], levels.shape[1], self._size)
                seen = levels[rows[:, None], columns].astype(np.float32)
                image[:] = np.where(seen > LAST_LEVEL, 0.0, DEPTH_FIRST + DEPTH_STEP * seen)
        return depth


def end_game(game: Any, folder: "tempfile.TemporaryDirectory[str]") -> None:
    game.close()
    folder.cleanup()


def _parts(degrees: float) -> int:
    """An angle in degrees as a whole number of Doom's parts."""
    return round(degrees * TURNS / 360) % TURNS


def resolution(vizdoom: Any, size: int) -> Any:
    """The smallest that is as high as the image."""
    for width, height in ((160, 120), (320, 240), (640, 480)):
        if height >= size:
            return getattr(vizdoom.ScreenResolution, f"RES_{width}X{height}")
    raise ValueError(f"size is {size}; at most 480")

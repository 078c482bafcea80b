"""Base classes of MuJoCo worlds: batched stepping and offscreen rendering.

The state of an episode is its positions and velocities, without MuJoCo's warm start. So a step depends only on (state,
action), and copies are cheap and exact.

    MUJOCO_GL is set      EGL, OSMesa or GLFW, as set
    Linux, a display      the first that works of GLFW, EGL and OSMesa; they are tried in another process, because a
                          process can load PyOpenGL for only one of them
    Linux, no display     the first that works of EGL and OSMesa
    elsewhere             MuJoCo's default

Shadows, reflections and anti-aliasing are disabled: they take nine tenths of the time. A renderer belongs to the thread
that made it. In another thread or a forked process, OpenGL would fail or hang, so this raises an error.
"""

import atexit
import os
import subprocess
import sys
import threading
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_data.errors import DataError
from jepa_data.worlds.packages import needed

APT = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0", "osmesa": "libosmesa6"}
MODULES = {"egl": "mujoco.egl", "osmesa": "mujoco.osmesa", "glfw": "mujoco.glfw"}
PROBE = (
    "import sys, importlib, mujoco\n"
    "context = importlib.import_module(sys.argv[1]).GLContext(16, 16)\n"
    "context.make_current()\n"
    "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), 100)\n"
)


class Physics:
    """Steps parallel episodes of a model with equal numbers of positions and velocities.

    Args:
        model: an MjModel.
        fastest: velocities are clipped to -fastest..fastest before every step.
    """

    def __init__(self, world: str, model: Any, extra: str, fastest: float = np.inf) -> None:
        self._model = model
        self._data = needed(world, "mujoco", extra).MjData(model)
        self._rollout = needed(world, "mujoco.rollout", extra).Rollout(nthread=0)
        self._fastest = fastest

    def step(self, state: NDArray[np.float64], control: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """State [E, 2n], positions before velocities, after `count` steps of the model under control [E, A]."""
        full = np.column_stack([np.zeros(len(state)), state])  # MuJoCo's has the time in front
        cold = np.zeros((len(state), self._model.nv))
        for _ in range(count):
            speed = full[:, 1 + self._model.nq :]
            np.clip(speed, -self._fastest, self._fastest, out=speed)
            reached, _ = self._rollout.rollout(self._model, self._data, full, control[:, None], initial_warmstart=cold)
            full = reached[:, -1]
        return full[:, 1:].copy()


class Scene:
    """Renders a model from a fixed camera above its origin.

    Args:
        size: of the square images, in pixels.
        width: visible width of the ground, in units of the model.
    """

    def __init__(self, world: str, model: Any, extra: str, size: int, width: float) -> None:
        self._mujoco = mujoco = needed(world, "mujoco", extra)
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.mat_reflectance[:] = 0
        self._model = model
        self._data = mujoco.MjData(model)
        self._world = world
        self._owner = _here()
        self._context = gl_context(world)(size, size)
        self._context.make_current()
        self._pixels = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        atexit.register(_free, self._context, self._pixels)  # before OpenGL itself goes
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._pixels)
        self._window = mujoco.MjrRect(0, 0, size, size)
        self._scene = mujoco.MjvScene(model, 500)
        camera = mujoco.MjvCamera()
        camera.lookat[:] = 0
        camera.azimuth = 90
        camera.elevation = -90
        camera.distance = width / 2 / np.tan(np.deg2rad(model.vis.global_.fovy) / 2)
        seen = (mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL.value)
        self._update = partial(mujoco.mjv_updateScene, model, self._data, *seen, self._scene)

    def draw(self, positions: NDArray[np.float64]) -> NDArray[np.uint8]:
        """RGB images [E, size, size, 3] of positions [E, n]; x points to the right, y upwards.

        Raises:
            DataError: called in another thread than the first call, or in a forked process.
        """
        if _here() != self._owner:
            raise DataError(
                f"{self._world} was drawn by another thread, or by the process that this one was forked from; OpenGL "
                "cannot be shared with it. Draw in one thread, and start processes by spawn"
            )
        mujoco = self._mujoco
        images = np.empty((len(positions), self._window.height, self._window.width, 3), np.uint8)
        self._context.make_current()
        for image, position in zip(images, positions, strict=True):
            self._data.qpos[:] = position
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_camlight(self._model, self._data)
            self._update()
            mujoco.mjr_render(self._window, self._scene, self._pixels)
            mujoco.mjr_readPixels(image, None, self._window, self._pixels)
        return images[:, ::-1].copy()  # OpenGL's first row is the lowest


def gl_context(world: str) -> Any:
    """The class of OpenGL contexts that works on this machine.

    Raises:
        DataError: none does; names Debian's packages.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if not wanted and sys.platform != "linux":
        return import_module("mujoco").GLContext
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    errors = {}
    for name in [wanted] if wanted else ["glfw"] * bool(display) + list(APT):
        if (error := _why_not(name)) is None:
            return import_module(MODULES[name]).GLContext
        errors[name] = error
    reasons = "; ".join(f"{name}: {error}" for name, error in errors.items())
    setting = f" with MUJOCO_GL={wanted}" if wanted else ""
    raise DataError(
        f"{world} is drawn by OpenGL, which does not work here{setting} ({reasons}). "
        f"On Debian and Ubuntu: apt install {APT['egl']} (or {APT['osmesa']})"
    )


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _free(context: Any, pixels: Any) -> None:
    context.make_current()
    pixels.free()
    context.free()


@cache
def _why_not(backend: str) -> str | None:
    """Why a backend cannot render; None if it can."""
    if backend not in MODULES:
        return f"expected one of {', '.join(MODULES)}"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, MODULES[backend]], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode == 0:
        return None
    return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"

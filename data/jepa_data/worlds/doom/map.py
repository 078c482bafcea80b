"""The map of doom-rooms as a Doom WAD, in the text format UDMF.

# # # # # # # # #     Cells are 128 units wide, as Doom's corridors are; its player is 32. Letters are rooms, + doors.
# a a a # b b b #     Every room has another floor, and a wall of its own towards north, east, south and west, so
# a a a + b b b #     that an image tells where it was taken. From c to d it is a long way.
# a a a # b b b #
# # + # # # + # #     Textures are names of Freedoom's, which the package vizdoom brings; none is in this file.
# c c c # d d d #
# c c c # d # d #     north is up, x points to the right, y upwards, and 0 is the middle of the map
# c c c # d d d #
# # # # # # # # #
"""

import struct

import numpy as np
from numpy.typing import NDArray

CELL = 128.0  # units
PLAN = (
    "#########",
    "#aaa#bbb#",
    "#aaa+bbb#",
    "#aaa#bbb#",
    "##+###+##",
    "#ccc#ddd#",
    "#ccc#d#d#",
    "#ccc#ddd#",
    "#########",
)
WALL_HEIGHT = 128
LIGHT, DARK = 208, 96
FLOORS = {"a": "FLOOR0_1", "b": "FLAT14", "c": "GRASS1", "d": "FLOOR7_1", "+": "FLAT20"}
CEILING = "CEIL5_2"
# Of the walls towards north, east, south and west.
WALLS = {
    "a": ("PANBLUE", "STARBR2", "CEMENT9", "ZZWOLF9"),
    "b": ("PANRED", "SILVER2", "BRICK12", "MARBLE1"),
    "c": ("PANBLACK", "MODWALL3", "REDWALL", "ROCK4"),
    "d": ("ZZWOLF11", "PIPES", "ICKWALL1", "TANROCK8"),
    "+": ("GRAY1", "GRAY1", "GRAY1", "GRAY1"),
}
TOWARDS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # row and column of the neighbor to the north, east, south, west


def wall_cells(doors_closed: bool = False) -> NDArray[np.bool_]:
    """Where there is a wall, or a closed door: [rows, columns]."""
    return np.array([[cell == "#" for cell in row] for row in plan(doors_closed)])


def plan(doors_closed: bool = False) -> tuple[str, ...]:
    """The cells of the map; closed doors are walls."""
    return tuple(row.replace("+", "#") for row in PLAN) if doors_closed else PLAN


def wad(light: int = LIGHT, doors_closed: bool = False) -> bytes:
    """The map as a file that Doom's engines read, as MAP01."""
    text = _text(plan(doors_closed), light)
    lumps = ((b"MAP01", b""), (b"TEXTMAP", text.encode()), (b"ENDMAP", b""))
    contents = b""
    table = b""
    for name, data in lumps:
        table += struct.pack("<ii8s", 12 + len(contents), len(data), name)
        contents += data
    return struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(contents)) + contents + table


def _text(plan: tuple[str, ...], light: int) -> str:
    """Corners, lines with their sides, sectors (one for each letter) and where the player starts."""
    sectors = {letter: number for number, letter in enumerate(FLOORS)}
    corners: dict[tuple[float, float], int] = {}
    lines = []
    sides = []
    for row, letters in enumerate(plan):
        for column, here in enumerate(letters):
            if here == "#":
                continue
            around = [_coordinates(row + down, column + right) for down, right in ((0, 0), (0, 1), (1, 1), (1, 0))]
            for side, (down, right) in enumerate(TOWARDS):
                neighbor = plan[row + down][column + right]
                if neighbor == here or (neighbor != "#" and side in (0, 3)):
                    continue  # no border, or one that the other cell draws
                # Clockwise around the cell: the front of a line, to its right, is this cell.
                ends = [corners.setdefault(around[(side + i) % 4], len(corners)) for i in (0, 1)]
                front = len(sides)
                if neighbor == "#":
                    sides.append(f'sector={sectors[here]}; texturemiddle="{WALLS[here][side]}";')
                    kind = "blocking=true;"
                else:
                    sides += [f"sector={sectors[here]};", f"sector={sectors[neighbor]};"]
                    kind = f"sideback={front + 1}; twosided=true;"
                lines.append(f"v1={ends[0]}; v2={ends[1]}; sidefront={front}; {kind}")
    floors = (
        f'heightfloor=0; heightceiling={WALL_HEIGHT}; texturefloor="{floor}"; textureceiling="{CEILING}"; '
        f"lightlevel={light};"
        for floor in FLOORS.values()
    )
    start_x, start_y = _coordinates(2.5, 2.5)  # the middle of room a
    skills = " ".join(f"skill{i}=true;" for i in range(1, 6))
    things = [f"x={start_x}; y={start_y}; type=1; single=true; {skills}"]
    blocks = {
        "vertex": [f"x={x}; y={y};" for x, y in corners],
        "linedef": lines,
        "sidedef": sides,
        "sector": list(floors),
        "thing": things,
    }
    text = [f"{kind} {{ {block} }}" for kind, some in blocks.items() for block in some]
    return "\n".join(['namespace = "zdoom";', *text, ""])


def _coordinates(row: int | float, column: int | float) -> tuple[float, float]:
    """x and y, from the middle of the map."""
    return (column - len(PLAN[0]) / 2) * CELL, (len(PLAN) / 2 - row) * CELL

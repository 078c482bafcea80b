"""V-JEPA 2-AC's predictor: the latents of the next frame from those of all frames so far and the actions between them.

A frame is a few conditioning tokens and its patches. All of them read their frame and the past, and what stands at the
patches of frame t afterwards is the prediction of frame t+1:

    frame t       | action t | state t | (camera) | patch 0 … patch N-1 |     action t takes frame t to t+1
    time                t         t         t         t           t           rotary positions (jepa/transformer.py):
    row, column        0, 0      0, 0      0, 0      i, j        i, j         conditioning tokens turn by time alone

    reads →    frame 0  frame 1  frame 2
    frame 0       x                             → z1
    frame 1       x        x                    → z2       keys and values of a frame never change, so `step` keeps
    frame 2       x        x        x           → z3       them: the result is that of the whole pass

With `conditioning` "adaln" a frame has no conditioning tokens: what they were made of is added up and modulates its
patches in every block (LeWM and JEPA-WMs; half the tokens where a frame is one vector).

With a `window` of w frames a frame reads itself and the w-1 before it, in the whole pass as in `step`, which then drops
what nobody will read: still the same result, and a state that stops growing.

Source: V-JEPA 2 (arXiv 2506.09985) and facebookresearch/vjepa2: width 1024, depth 24, heads 16, actions and states of 7
numbers, 16x16 patches, 305.2 M parameters, frequencies "rotary_tiled". There columns are spread over as many positions
as there are rows, which a square grid does not show.

FLOPs of a step at frame t, L tokens a frame, W the width inside, D of the latents: depth * L * (8*W² + 4*W²*mlp_ratio +
4*(t+1)*L*W) + 4*N*D*W. A whole pass of S frames: S * L in place of L, and S in place of t+1 (the mask saves nothing).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from jepa.predictors.pose import move_gripper
from jepa.transformer import NORM_EPS, AdaptiveBlock, Block, Rotary, grid_positions, initialise, rotary_table
from jepa.world_model import Point, State

Conditioning = Literal["token", "adaln"]
NextState = Callable[[Tensor, Tensor], Tensor]  # state [B, X] under an action [B, A] -> [B, X]
Pair = tuple[Tensor, Tensor]  # keys and values of a block, [B, heads, L, C]


def add_action(state: Float[Tensor, "B X"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B X"]:
    """The next state where actions are differences of states."""
    if state.shape != action.shape:
        raise ValueError(
            f"a state {state.shape[-1]} wide under an action {action.shape[-1]} wide: say how it changes (next_state)"
        )
    return state + action


@dataclass(frozen=True)
class Segment:
    """Keys and values of some frames, a pair for each block; `rows`: which row is whose, so that candidates that begin
    alike share their beginning; None: each its own."""

    pairs: tuple[Pair, ...]
    rows: Int[Tensor, " B"] | None = None

    def gather(self, index: Int[Tensor, " M"]) -> "Segment":
        return Segment(self.pairs, index if self.rows is None else self.rows[index])

    def read(self, block: int) -> Pair:
        key, value = self.pairs[block]
        return (key, value) if self.rows is None else (key[self.rows], value[self.rows])


@dataclass(frozen=True)
class CausalState:
    """What has been seen: `steps` frames in `past`, and the newest one, whose action is still to come, with its `state`
    and `camera`, None if the predictor takes none."""

    past: tuple[Segment, ...]
    steps: int
    z: Float[Tensor, "B N D"]
    state: Float[Tensor, "B X"] | None = None
    camera: Float[Tensor, "B E"] | None = None

    def repeat(self, k: int) -> "CausalState":
        """Costs no copy of the past, whatever k."""
        return self.gather(torch.arange(len(self.z), device=self.z.device).repeat_interleave(k))

    def gather(self, index: Int[Tensor, " M"]) -> "CausalState":
        state, camera = (None if x is None else x[index] for x in (self.state, self.camera))
        return CausalState(tuple(part.gather(index) for part in self.past), self.steps, self.z[index], state, camera)

    def detach(self) -> "CausalState":
        past = tuple(Segment(tuple((k.detach(), v.detach()) for k, v in part.pairs), part.rows) for part in self.past)
        state, camera = (None if x is None else x.detach() for x in (self.state, self.camera))
        return CausalState(past, self.steps, self.z.detach(), state, camera)

    def nbytes(self) -> int:
        own = sum(x.nbytes for x in (self.z, self.state, self.camera) if x is not None)
        rows = sum(part.rows.nbytes for part in self.past if part.rows is not None)
        return own + rows + sum(k.nbytes + v.nbytes for part in self.past for k, v in part.pairs)


class CausalPredictor(nn.Module):
    """Predicts the next frame's latents under an action; the Dynamics of `jepa.world_model`.

    Args:
        width: D; latents are [B, S, N, D].
        action_size: width of the action of one latent step.
        state_size: width of what the robot knows of itself at a frame; 0 takes none.
        grid: rows and columns of the patches, N = rows * columns; (1, 1) for a latent that is one vector.
        hidden, depth, heads, mlp_ratio: of the transformer.
        positions: "rotary_tiled" is for the published weights.
        camera_size: width of a camera's pose; its token is there only if poses are given (published: 6, not given).
        layer_norm_out: predictions are LayerNormed, without affine, as the published latents are.
        conditioning: whether actions and states are tokens of a frame, or modulate its patches (adaptive LayerNorm).
        window: frames that a frame reads, its own among them; None: all before it.
        next_state: how an action changes the state while frames are imagined; see `add_action` and `pose.move_gripper`.
    """

    def __init__(
        self,
        width: int,
        action_size: int,
        state_size: int = 0,
        *,
        grid: tuple[int, int] = (1, 1),
        hidden: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        positions: Rotary = "rotary",
        camera_size: int = 0,
        layer_norm_out: bool = False,
        conditioning: Conditioning = "token",
        window: int | None = None,
        next_state: NextState = add_action,
    ) -> None:
        super().__init__()
        if window is not None and window < 1:
            raise ValueError(f"a frame reads at least itself (window 1), found window {window}")
        self.window = window
        self.conditioning: Conditioning = conditioning
        self.width, self.action_size, self.state_size, self.camera_size = width, action_size, state_size, camera_size
        self.grid, self.tokens = grid, grid[0] * grid[1]
        self.hidden, self.heads, self.mlp_ratio = hidden, heads, mlp_ratio
        self.positions: Rotary = positions
        self.layer_norm_out, self.next_state = layer_norm_out, next_state
        self.predictor_embed = nn.Linear(width, hidden)
        self.action_encoder = nn.Linear(action_size, hidden)
        self.state_encoder = nn.Linear(state_size, hidden) if state_size else None
        self.extrinsics_encoder = nn.Linear(camera_size, hidden) if camera_size else None
        kind = Block if conditioning == "token" else AdaptiveBlock
        self.predictor_blocks = nn.ModuleList([kind(hidden, heads, mlp_ratio) for _ in range(depth)])
        self.predictor_norm = nn.LayerNorm(hidden, NORM_EPS)
        self.predictor_proj = nn.Linear(hidden, width)
        initialise(self, list(self.predictor_blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    def forward(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S A"],
        states: Float[Tensor, "B S X"] | None = None,
        cameras: Float[Tensor, "B S E"] | None = None,
    ) -> Float[Tensor, "B S N D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latents, actions and states up to s.

        Raises ValueError if a width is another than in training, or states are missing or surplus.
        """
        return self._read(*self._frames(z, actions, states, cameras), 0, (), None)

    parallel = forward

    def init(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
        cameras: Float[Tensor, "B S E"] | None = None,
    ) -> CausalState:
        """After S latents and the S-1 actions between them. While frames are imagined the camera stays where it was."""
        seen = z.shape[1] - 1
        self._check(z, actions, states, cameras)
        pairs = list[Pair]()
        if seen:
            before = [None if x is None else x[:, :seen] for x in (states, cameras)]
            frames, condition = self._frames(z[:, :seen], actions, *before)
            self._read(frames, condition, 0, (), pairs)
            past = _newest((Segment(tuple(pairs)),), self.window, frames.shape[2])
        else:
            past = ()
        state, camera = (None if x is None else x[:, -1] for x in (states, cameras))
        return CausalState(past, seen, z[:, -1], state, camera)

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None
    ) -> tuple[CausalState, Point]:
        assert isinstance(state, CausalState)
        now = [None if x is None else x[:, None] for x in (state.state, state.camera)]
        frame, condition = self._frames(state.z[:, None], action[:, None], *now)
        pairs = list[Pair]()
        z = self._read(frame, condition, state.steps, state.past, pairs)[:, 0]
        moved = None if state.state is None else self.next_state(state.state, action)
        past = _newest((*state.past, Segment(tuple(pairs))), self.window, frame.shape[2])
        return CausalState(past, state.steps + 1, z, moved, state.camera), Point(z)

    def _frames(
        self, z: Tensor, actions: Tensor, states: Tensor | None, cameras: Tensor | None
    ) -> tuple[Float[Tensor, "B S L W"], Float[Tensor, "B S W"] | None]:
        """The tokens of S frames; and what modulates them, where conditions are no tokens."""
        self._check(z, actions, states, cameras)
        conditions = [self.action_encoder(actions)]
        for encoder, given in ((self.state_encoder, states), (self.extrinsics_encoder, cameras)):
            if encoder is not None and given is not None:
                conditions.append(encoder(given))
        patches, stacked = self.predictor_embed(z), torch.stack(conditions, 2)
        if self.conditioning == "adaln":
            return patches, stacked.sum(2)
        return torch.cat([stacked, patches], 2), None

    def _read(
        self,
        frames: Float[Tensor, "B S L W"],
        condition: Float[Tensor, "B S W"] | None,
        first: int,
        past: tuple[Segment, ...],
        pairs: list[Pair] | None,
    ) -> Float[Tensor, "B S N D"]:
        """The latents that follow these frames, number `first` and on; `pairs` takes what they leave to be read."""
        steps, tokens = frames.shape[1:3]
        rotary = self._rotary(first, steps, tokens - self.tokens, frames.device)
        mask = None if steps == 1 else _mask(first, steps, tokens, self.window, frames.device)
        modulated = {} if condition is None else {"condition": condition}
        x = frames.flatten(1, 2)
        for number, block in enumerate(self.predictor_blocks):
            remember = partial(_remember, [part.read(number) for part in past], pairs)
            x = block.step(x, rotary, remember, mask, **modulated)  # pyright: ignore[reportCallIssue]
        patches = x.unflatten(1, (steps, tokens))[:, :, -self.tokens :]
        z = self.predictor_proj(self.predictor_norm(patches))
        return F.layer_norm(z, (self.width,)) if self.layer_norm_out else z

    def _rotary(self, first: int, steps: int, conditions: int, device: torch.device) -> Complex[Tensor, "1 M R P"]:
        rows, columns = self.grid
        cells = grid_positions(torch.arange(self.tokens, device=device)[None], (1, rows, columns))
        cells = cells * cells.new_tensor([0.0, 1.0, rows / columns])
        frame = F.pad(cells, (0, 0, conditions, 0))
        time = torch.arange(first, first + steps, device=device, dtype=torch.float32)
        positions = frame + F.pad(time[:, None, None], (0, 2))
        return rotary_table(positions.flatten(0, 1)[None], self.hidden // self.heads, self.positions)

    def _check(self, z: Tensor, actions: Tensor, states: Tensor | None, cameras: Tensor | None) -> None:
        if z.shape[2:] != (self.tokens, self.width):
            raise ValueError(f"the predictor reads latents [{self.tokens}, {self.width}], found {list(z.shape[2:])}")
        if actions.shape[-1] != self.action_size:
            raise ValueError(
                f"the predictor takes actions {self.action_size} wide (all raw actions of one latent step side by "
                f"side), found {actions.shape[-1]}"
            )
        if (found := 0 if states is None else states.shape[-1]) != self.state_size:
            raise ValueError(f"the predictor takes states {self.state_size} wide at every frame, found {found or None}")
        if cameras is not None and cameras.shape[-1] != self.camera_size:
            raise ValueError(f"the predictor takes camera poses {self.camera_size} wide, found {cameras.shape[-1]}")


def published(width: int = 1408, grid: tuple[int, int] = (16, 16)) -> CausalPredictor:
    """V-JEPA 2-AC's, as it was trained on ViT-g at 256 px."""
    return CausalPredictor(
        width, 7, 7, grid=grid, positions="rotary_tiled", camera_size=6, layer_norm_out=True, next_state=move_gripper
    )


def _remember(before: list[Pair], pairs: list[Pair] | None, key: Tensor, value: Tensor) -> Pair:
    """Note the new keys and values, and give all that may be read."""
    if pairs is not None:  # copies: these are views of memory that holds the queries too
        pairs.append((key.clone(), value.clone()))
    if not before:
        return key, value
    keys, values = zip(*before, (key, value), strict=True)
    return torch.cat(keys, 2), torch.cat(values, 2)


def _newest(past: tuple[Segment, ...], window: int | None, frame: int) -> tuple[Segment, ...]:
    """What the next frame reads of the past; `frame`: tokens of one."""
    if window is None:
        return past
    kept, tokens = list[Segment](), (window - 1) * frame
    for part in reversed(past):
        if tokens <= 0:
            break
        length = min(tokens, part.pairs[0][0].shape[2])
        kept.insert(0, Segment(tuple((k[:, :, -length:], v[:, :, -length:]) for k, v in part.pairs), part.rows))
        tokens -= length
    return tuple(kept)


def _mask(first: int, steps: int, tokens: int, window: int | None, device: torch.device) -> Bool[Tensor, "1 1 L K"]:
    """True where a token of the new frames may read: its own frame and all before, or the last ones of them."""
    frame = torch.arange((first + steps) * tokens, device=device) // tokens
    ago = frame[first * tokens :, None] - frame
    return ((ago >= 0) if window is None else (ago >= 0) & (ago < window))[None, None]

"""V-JEPA 2-AC's predictor: the latents of the next frame from those of all frames so far and the actions between them.

A frame is a few conditioning tokens and its patches. All tokens attend to their frame and the past. The outputs at the
patches of frame t are the prediction of frame t+1:

    frame t       | action t | state t | (camera) | patch 0 … patch N-1 |     action t takes frame t to t+1
    time                t         t         t         t           t           rotary positions (jepa/transformer.py):
    row, column        0, 0      0, 0      0, 0      i, j        i, j         conditioning tokens: only time

    reads →    frame 0  frame 1  frame 2
    frame 0       x                             → z1
    frame 1       x        x                    → z2       keys and values of a frame never change, so `step` keeps
    frame 2       x        x        x           → z3       them: the result is that of the whole pass

With `conditioning` "adaln", there are no conditioning tokens: the sum of the embeddings of action and state modulates
the patches of the frame in every block (LeWM and JEPA-WMs; half the tokens if a frame is one vector). With "concat", a
small embedding of them is concatenated to every patch (DINO-WM).

States are proprioceptive. In imagined rollouts they change by a rule (`next_state`), or are predicted: the mean of the
predictions of all patches.

With a `window` of w frames, a frame attends to itself and the w-1 frames before it, in the whole pass and in `step`.
`step` drops older frames: the result is the same, and the state stops growing.

Source: V-JEPA 2 (arXiv 2506.09985) and facebookresearch/vjepa2: width 1024, depth 24, heads 16, actions and states of 7
numbers, 16x16 patches, 305.2 M parameters, frequencies "rotary_tiled". The reference code spreads columns over as many
positions as there are rows; on a square grid, this makes no difference.

FLOPs of a step at frame t, L tokens a frame, W the width inside, D of the latents: depth * L * (8*W² + 4*W²*mlp_ratio +
4*(t+1)*L*W) + 4*N*D*W. A whole pass of S frames: S * L in place of L, and S in place of t+1 (the mask saves nothing).
With a `head_dim` of its own, 8*W² and 4*(t+1)*L*W take heads * head_dim in place of one W.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from pydantic import Field
from torch import Tensor, nn

from jepa.config.fields import Count, Positive
from jepa.normalize import standardize
from jepa.predictors.base import Predictor, PredictorConfig
from jepa.predictors.gripper import apply_delta_pose
from jepa.predictors.networks.kv_cache import CausalState, Pair, Segment, append, frame_mask, trim, where_given
from jepa.transformer import NORM_EPS, AdaptiveBlock, Block, Rotary, grid_positions, initialize, rotary_table
from jepa.world_model import Deterministic, State

TABLES = 32  # of sines, kept: a search asks for the same few again and again
NextState = Callable[[Tensor, Tensor], Tensor]  # state [B, X] under an action [B, A] -> [B, X]


def add_action(state: Float[Tensor, "B X"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B X"]:
    """The next state where actions are differences of states."""
    if state.shape != action.shape:
        raise ValueError(
            f"a state {state.shape[-1]} wide under an action {action.shape[-1]} wide: say how it changes (next_state)"
        )
    return state + action


NEXT_STATES: dict[str, NextState | None] = {
    "add_action": add_action,
    "apply_delta_pose": apply_delta_pose,
    "predicted": None,
}


class CausalPredictor(Predictor):
    """Predicts the latents of the next frame for an action; a `Dynamics` of `jepa.world_model`.

    Args:
        width: D; latents are [B, S, N, D].
        action_size: width of the action of one latent step.
        grid: rows and columns of the patches, N = rows * columns; (1, 1) for a latent that is one vector.

    Attributes:
        scale_actions, scale_states: standardize raw actions and states; fitted in training.
    """

    reads_patches = True

    class Config(PredictorConfig):
        """Transformer over frames, actions and states (V-JEPA 2-AC, DINO-WM, JEPA-WMs, LeWM)."""

        kind: Literal["causal"] = "causal"
        state_size: int = Field(default=0, ge=0, description="width of the proprioceptive states; set by method.states")
        hidden: Count = 1024
        depth: Count = 24
        heads: Count = 16
        mlp_ratio: Positive = 4.0
        head_dim: Count | None = Field(default=None, description="channels per head; none: hidden / heads")
        positions: Rotary = Field(default="rotary", description="rotary_tiled is for the published weights")
        camera_size: int = Field(
            default=0, ge=0, description="width of the camera pose; its token exists only if poses are given"
        )
        layer_norm_out: bool = Field(
            default=False, description="LayerNorm without affine on the predictions, as on the published latents"
        )
        conditioning: Literal["token", "adaln", "concat"] = Field(
            default="token",
            description="actions and states are tokens, modulate the patches of their frame, or are concatenated",
        )
        condition_size: Count = Field(
            default=10, description="with concat: widths of the embeddings of action and state"
        )
        window: Count | None = Field(
            default=None, description="frames that a frame attends to, including itself; none: all so far"
        )
        next_state: Literal["add_action", "apply_delta_pose", "predicted"] = Field(
            default="add_action", description="next state in imagined rollouts"
        )
        normalize_states: bool = Field(default=False, description="the same for states")

    def __init__(self, config: Config, width: int, action_size: int, grid: tuple[int, int] = (1, 1)) -> None:
        super().__init__(config, width, action_size)
        if config.camera_size and config.conditioning == "concat":
            raise ValueError("conditioning concat takes actions and states, and no cameras (camera_size 0)")
        if config.normalize_states and not config.state_size:
            raise ValueError("there are no states to normalize (state_size 0): omit normalize_states")
        self.grid = grid
        self.tokens = grid[0] * grid[1]
        self.state_size, self.context = config.state_size, config.window
        self.next_state = NEXT_STATES[config.next_state]
        self.scale_states = standardize(config.state_size, config.normalize_states)
        hidden = size = config.hidden
        extra = 0
        if config.conditioning == "concat":
            size = config.condition_size
            extra = size * (1 + bool(config.state_size))
        self.predictor_embed = nn.Linear(width + extra, hidden)
        self.action_encoder = nn.Linear(action_size, size)
        self.state_encoder = nn.Linear(config.state_size, size) if config.state_size else None
        self.extrinsics_encoder = nn.Linear(config.camera_size, size) if config.camera_size else None
        block = AdaptiveBlock if config.conditioning == "adaln" else Block
        self.predictor_blocks = nn.ModuleList(
            [block(hidden, config.heads, config.mlp_ratio, config.head_dim) for _ in range(config.depth)]
        )
        self.predictor_norm = nn.LayerNorm(hidden, NORM_EPS)
        self.predictor_proj = nn.Linear(hidden, width)
        self.state_proj = nn.Linear(hidden, config.state_size) if self.predicts_states else None
        initialize(self, list(self.predictor_blocks))  # pyright: ignore[reportArgumentType] - ModuleList forgets its type

    @property
    def predicts_states(self) -> bool:
        """Whether the next state is predicted, rather than known from the action."""
        return self.state_size > 0 and self.next_state is None

    def forward(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S A"],
        states: Float[Tensor, "B S X"] | None = None,
        cameras: Float[Tensor, "B S E"] | None = None,
    ) -> Float[Tensor, "B S N D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latents, actions and states up to s.

        Raises ValueError if a width differs from training, or states are missing or not needed.
        """
        return self.joint(z, actions, states, cameras)[0]

    parallel = forward

    def joint(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S A"],
        states: Float[Tensor, "B S X"] | None = None,
        cameras: Float[Tensor, "B S E"] | None = None,
    ) -> tuple[Float[Tensor, "B S N D"], Float[Tensor, "B S N X"] | None]:
        """Like `forward`; if states are predicted, also the prediction of each patch for the next state, scaled."""
        return self._read(*self._frames(z, actions, states, cameras), 0, (), None)

    def initial_state(
        self,
        z: Float[Tensor, "B S N D"],
        actions: Float[Tensor, "B S-1 A"],
        states: Float[Tensor, "B S X"] | None = None,
        cameras: Float[Tensor, "B S E"] | None = None,
    ) -> CausalState:
        """The state after S latents and S-1 actions. In imagined rollouts, the camera pose is constant."""
        seen = z.shape[1] - 1
        self._check(z, actions, states, cameras)
        pairs = list[Pair]()
        if seen:
            before = where_given(lambda x: x[:, :seen], states, cameras)
            frames, condition = self._frames(z[:, :seen], actions, *before)
            self._read(frames, condition, 0, (), pairs)
            past = trim((Segment(tuple(pairs)),), self.context, frames.shape[2])
        else:
            past = ()
        return CausalState(past, seen, z[:, -1], *where_given(lambda x: x[:, -1], states, cameras))

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None, temperature: float = 1.0
    ) -> tuple[CausalState, Deterministic]:
        assert isinstance(state, CausalState)
        now = where_given(lambda x: x[:, None], state.state, state.camera)
        frame, condition = self._frames(state.z[:, None], action[:, None], *now)
        pairs = list[Pair]()
        next_latent, next_state = self._read(frame, condition, state.steps, state.past, pairs)
        z = next_latent[:, 0]
        moved = None
        if next_state is not None:
            moved = self.scale_states.inverse(next_state[:, 0].mean(1))
        elif state.state is not None and self.next_state is not None:
            moved = self.next_state(state.state, self.plain_actions(action))
        past = trim((*state.past, Segment(tuple(pairs))), self.context, frame.shape[2])
        return CausalState(past, state.steps + 1, z, moved, state.camera), Deterministic(z)

    def _frames(
        self, z: Tensor, actions: Tensor, states: Tensor | None, cameras: Tensor | None
    ) -> tuple[Float[Tensor, "B S L W"], Float[Tensor, "B S W"] | None]:
        """The tokens of S frames; and what modulates them, where conditions are no tokens."""
        self._check(z, actions, states, cameras)
        conditions = [self.action_encoder(self.scale_actions(actions))]
        if self.state_encoder is not None and states is not None:
            conditions.append(self.state_encoder(self.scale_states(states)))
        if self.extrinsics_encoder is not None and cameras is not None:
            conditions.append(self.extrinsics_encoder(cameras))
        if self.config.conditioning == "concat":
            extra = torch.cat(conditions, -1)[:, :, None].expand(-1, -1, self.tokens, -1)
            return self.predictor_embed(torch.cat([z, extra.to(z.dtype)], -1)), None
        patches = self.predictor_embed(z)
        stacked = torch.stack(conditions, 2)
        if self.config.conditioning == "adaln":
            return patches, stacked.sum(2)
        return torch.cat([stacked, patches], 2), None

    def _read(
        self,
        frames: Float[Tensor, "B S L W"],
        condition: Float[Tensor, "B S W"] | None,
        first: int,
        past: tuple[Segment, ...],
        pairs: list[Pair] | None,
    ) -> tuple[Float[Tensor, "B S N D"], Float[Tensor, "B S N X"] | None]:
        """What follows these frames, number `first` and on, see `joint`; `pairs` takes what they leave to be read."""
        steps, tokens = frames.shape[1:3]
        rotary = self._rotary(first, steps, tokens - self.tokens, frames.device)
        mask = None if steps == 1 else frame_mask(first, steps, tokens, self.context, frames.device)
        modulated = {} if condition is None else {"condition": condition}
        x = frames.flatten(1, 2)
        for number, block in enumerate(self.predictor_blocks):
            keep = partial(append, [part.read(number) for part in past], pairs)
            x = block.step(x, rotary, keep, mask, **modulated)  # pyright: ignore[reportCallIssue]
        patches = self.predictor_norm(x.unflatten(1, (steps, tokens))[:, :, -self.tokens :])
        z = self.predictor_proj(patches)
        if self.config.layer_norm_out:
            z = F.layer_norm(z, (self.width,))
        return z, None if self.state_proj is None else self.state_proj(patches)

    def _rotary(self, first: int, steps: int, conditions: int, device: torch.device) -> Complex[Tensor, "1 M R P"]:
        head_dim = self.config.head_dim or self.config.hidden // self.config.heads
        return _rotary(self.grid, first, steps, conditions, head_dim, self.config.positions, device)

    def _check(self, z: Tensor, actions: Tensor, states: Tensor | None, cameras: Tensor | None) -> None:
        if z.shape[2:] != (self.tokens, self.width):
            raise ValueError(f"the predictor reads latents [{self.tokens}, {self.width}], found {list(z.shape[2:])}")
        self._check_actions(actions)
        if (size := 0 if states is None else states.shape[-1]) != self.state_size:
            raise ValueError(f"the predictor takes states {self.state_size} wide at every frame, found {size or None}")
        if cameras is not None and cameras.shape[-1] != self.config.camera_size:
            raise ValueError(
                f"the predictor takes camera poses {self.config.camera_size} wide, found {cameras.shape[-1]}"
            )


@lru_cache(TABLES)
@torch.inference_mode(False)  # a table that was made while planning may serve training later
def _rotary(
    grid: tuple[int, int],
    first: int,
    steps: int,
    conditions: int,
    head_dim: int,
    kind: Rotary,
    device: torch.device,
) -> Complex[Tensor, "1 M R P"]:
    """How far the tokens of `steps` frames, from number `first` on, are turned."""
    rows, columns = grid
    cells = grid_positions(torch.arange(rows * columns, device=device)[None], (1, rows, columns))
    cells = cells * cells.new_tensor([0.0, 1.0, rows / columns])
    frame = F.pad(cells, (0, 0, conditions, 0))
    time = torch.arange(first, first + steps, device=device, dtype=torch.float32)
    positions = frame + F.pad(time[:, None, None], (0, 2))
    return rotary_table(positions.flatten(0, 1)[None], head_dim, kind)

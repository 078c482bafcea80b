"""A gated recurrent unit whose hidden state is the latent: EB-JEPA's dynamics for vector latents.

    z' = GRU(input a, hidden z)

The latent is all it remembers, so a latent has to tell where things move, not only where they are. Where the encoder
ends in a LayerNorm, EB-JEPA's GRU ends in the same one: `layer_norm_out`.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.normalize import standardize
from jepa.predictors.mlp import LatentState
from jepa.world_model import Deterministic, State


class GRUPredictor(nn.Module):
    """The Dynamics of `jepa.world_model` by one GRU cell.

    Args:
        width: D; latents are [B, 1, D].
        action_size: width of the action of one latent step (tubelet x raw action).
        layer_norm_out: predictions are LayerNormed, without affine, as the latents are.
        normalize_actions: they come raw, and are standardized before anything reads them; see jepa/normalize.py.
    """

    def __init__(
        self, width: int, action_size: int, *, layer_norm_out: bool = False, normalize_actions: bool = False
    ) -> None:
        super().__init__()
        self.width, self.action_size, self.layer_norm_out = width, action_size, layer_norm_out
        self.scale_actions = standardize(action_size, normalize_actions)
        self.cell = nn.GRUCell(action_size, width)

    def forward(self, z: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        """Raises ValueError if the action has another width than in training."""
        if action.shape[-1] != self.action_size:
            raise ValueError(
                f"the dynamics take actions {self.action_size} wide (all raw actions of one latent step side by side), "
                f"found {action.shape[-1]}"
            )
        next_latent = self.cell(self.scale_actions(action), z[:, 0])[:, None]
        return F.layer_norm(next_latent, (self.width,)) if self.layer_norm_out else next_latent

    def parallel(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S A"]) -> Float[Tensor, "B S 1 D"]:
        """Teacher-forced: row s is the prediction of latent s+1 from latent s."""
        return self(z.flatten(0, 1), actions.flatten(0, 1)).unflatten(0, z.shape[:2])

    def initial_state(self, z: Float[Tensor, "B S 1 D"], actions: Float[Tensor, "B S-1 A"]) -> LatentState:
        """The last latent; what came before is forgotten."""
        return LatentState(z[:, -1])

    def step(
        self, state: State, action: Float[Tensor, "B A"], noise: Tensor | None = None
    ) -> tuple[LatentState, Deterministic]:
        assert isinstance(state, LatentState)
        next_latent = self(state.z, action)
        return LatentState(next_latent), Deterministic(next_latent)

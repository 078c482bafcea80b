"""`jepa compress`: the frozen encoder that is reduced, and the model that it becomes with reductions of its tokens.

run, model folder or hub id ──→ frozen encoder ──→ latents of training clips ──→ fitted reductions ──┐
                                      └──────────────────── CompressedEncoder ←──────────────────────┘
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from jepa.config import errors_of
from jepa.encoders.compressed import CompressedEncoder
from jepa.encoders.module import Encoder
from jepa.encoders.reductions.base import ReductionConfig, TokenLayout
from jepa.encoders.reductions.chain import Chain
from jepa.models.config import ModelConfig
from jepa.models.model import Model
from jepa.training.encoder_from import open_frozen
from jepa.training.run_state.checkpoints import tensors_sha256
from jepa.world_model import LatentSpec, LatentWorldModel


@dataclass(frozen=True)
class FrozenSource:
    """A frozen encoder of single latent steps, as `method.encoder_from` and `jepa data tokenize` use it.

    Attributes:
        about: the model it is from.
        sha256: of its tensors, as in latents.json.
    """

    about: ModelConfig
    encoder: Encoder
    sha256: str

    @classmethod
    def open(cls, name: str) -> "FrozenSource":
        """Of a run, a model folder or a hub id.

        Raises:
            UserError: there is no such model, or its latents depend on other frames than their own.
        """
        about, encoder = open_frozen(name)
        return cls(about, encoder, tensors_sha256(encoder))

    @property
    def layout(self) -> TokenLayout:
        """Of its tokens; without rows and columns where an earlier merge gave them up."""
        if isinstance(self.encoder, CompressedEncoder):
            return self.encoder.chain.layout
        return TokenLayout.square(self.encoder.tokens, self.encoder.width)

    def model(self, encoder: Encoder) -> Model:
        """A model of this one's encoder or of one made of it, for the same video and without dynamics."""
        about = self.about
        preprocessing = about.preprocessing
        if preprocessing.clip_frames is None:
            preprocessing = replace(preprocessing, clip_frames=about.frames)
        seconds = encoder.tubelet / preprocessing.fps
        spec = LatentSpec(encoder.tokens, encoder.width, seconds, encoder.tubelet)
        config = ModelConfig(
            method=about.method,
            frames=about.frames,
            encoder=encoder.config,
            spec=spec,
            preprocessing=preprocessing,
        )
        return Model(LatentWorldModel(encoder, None, spec, preprocessing).eval().requires_grad_(False), config)

    def compressed(self, chain: Chain) -> Model:
        """The model with fitted reductions of the tokens."""
        return self.model(CompressedEncoder.around(self.encoder, chain, self.sha256))


def chains_for(wanted: Iterable[Sequence[ReductionConfig]], layout: TokenLayout) -> list[Chain]:
    """Reductions that are not fitted yet. Raises UserError for those that do not fit the tokens, naming them."""
    with errors_of("keep"):
        return [Chain(configs, layout) for configs in wanted]

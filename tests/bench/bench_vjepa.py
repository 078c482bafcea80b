"""`make bench`: the V-JEPA family on one thread, against the same work by transformers' layers.

The baseline of a training step takes the layers of transformers' `VJEPA2Model`, with the same weights, through the
steps of V-JEPA 2's own code: visible tokens only in the context encoder, rotary sines and cosines made anew in every
layer, tokens of the predictor sorted, a moving average parameter by parameter.
"""

import copy
import json
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from jepa.encoders.sizes import SIZES
from jepa.encoders.video_vit import VideoViT
from jepa.methods.base import Batch, ClipShape
from jepa.methods.vjepa import VJEPA
from jepa.models.huggingface import to_transformers
from jepa.objectives.latent_regression import latent_regression, normalized
from jepa.predictors.masked import MaskedPredictor
from jepa.training.optim import adamw
from tests.bench.conftest import RESULTS

pytestmark = pytest.mark.usefixtures("one_thread")
Compare = Callable[..., float]
FRAMES, TUBELET, PATCH = 16, 2, 16
STEPS = [("tiny", 64, 4), ("small", 112, 2)]  # size, image in pixels, clips
CPU = torch.cpu.get_capabilities()
PRECISIONS = {"fp32": nullcontext, "bf16": lambda: torch.autocast("cpu", torch.bfloat16)}


def make_encoder(size: str, pixels: int) -> VideoViT:
    s = SIZES[size]
    torch.manual_seed(0)
    return VideoViT(
        VideoViT.Config(
            patch=PATCH,
            tubelet=TUBELET,
            width=s.width,
            depth=s.depth,
            heads=s.heads,
            mlp_ratio=s.mlp_ratio,
            positions="rotary_tiled",
        ),
        pixels,
        FRAMES,
    )


PREDICTOR = MaskedPredictor.Config(width=384, depth=12, heads=12, positions="rotary_tiled")


def make_predictor(width: int) -> MaskedPredictor:
    return MaskedPredictor(PREDICTOR, width)


class Step:
    """One training step of ours: loss of both masks, backward, AdamW, moving average."""

    def __init__(self, method: nn.Module, precision: str) -> None:
        self.method, self.precision = method, PRECISIONS[precision]
        self.optimizer = adamw(method, lr=1e-4, weight_decay=0.04, betas=(0.9, 0.999))
        self.number = 0

    def __call__(self, video: Tensor) -> float:
        self.number += 1
        generator = torch.Generator().manual_seed(self.number)
        with self.precision():
            loss = self.method.loss(Batch(video, None), generator)["loss"]  # pyright: ignore[reportCallIssue]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.method.after_step(self.number, 1000)  # pyright: ignore[reportCallIssue]
        return loss.item()


class FromTransformers(nn.Module):
    """V-JEPA 2's step made of the layers of `VJEPA2Model`."""

    def __init__(self, encoder: VideoViT, predictor: MaskedPredictor, masks: VJEPA) -> None:
        super().__init__()
        self.model = to_transformers(encoder, predictor)
        self.target = copy.deepcopy(self.model.encoder).requires_grad_(False)
        self.drawn = (masks.masks, encoder.grid)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        masks, grid = self.drawn
        with torch.no_grad():
            truth = normalized(self.target(batch.video).last_hidden_state)
        losses = []
        for mask in masks:
            seen, hidden = mask(grid(batch.video), len(batch.video), generator)
            x = self.model.encoder.embeddings(batch.video).take_along_dim(seen[..., None], 1)
            for layer in self.model.encoder.layer:
                x = layer(x, seen)[0]
            x = self.model.encoder.layernorm(x)
            # The predictor picks the context out of all tokens, so it is put back to where it was taken from.
            everything = x.new_zeros(len(x), seen.shape[1] + hidden.shape[1], x.shape[2])
            everything = everything.scatter(1, seen[..., None].expand_as(x), x)
            prediction = self.model.predictor(everything, [seen], [hidden]).last_hidden_state
            losses.append(latent_regression(prediction, truth.take_along_dim(hidden[..., None], 1)))
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        for slow, fast in zip(self.target.parameters(), self.model.encoder.parameters(), strict=True):
            slow.mul_(0.99925).add_(fast, alpha=1 - 0.99925)


@pytest.mark.parametrize("precision", list(PRECISIONS))
@pytest.mark.parametrize(("size", "pixels", "clips"), STEPS)
def test_a_training_step_against_the_layers_of_transformers(
    compare: Compare, size: str, pixels: int, clips: int, precision: str
) -> None:
    if precision == "bf16" and not {"avx512_bf16", "amx_bf16"} & {k for k, v in CPU.items() if v}:
        pytest.skip("this processor has no bf16 arithmetic: emulated, a step takes ten times as long as in fp32")
    video = torch.randn(clips, FRAMES, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    encoder = make_encoder(size, pixels)
    method = VJEPA(VJEPA.Config(predictor=PREDICTOR), encoder, ClipShape(FRAMES))
    theirs = FromTransformers(encoder, method.predictor, method)
    ours, baseline = Step(method, precision), Step(theirs, precision)
    first = ours(video), baseline(video)
    assert first[0] == pytest.approx(first[1], rel=1e-4 if precision == "fp32" else 2e-2)
    compare(
        f"vjepa2_step_{size}_{pixels}px_{precision}",
        lambda: ours(video),
        lambda: baseline(video),
        f"a V-JEPA 2 training step, {size}, {clips} clips of 16 frames at {pixels} px, predictor 384/12/12, "
        f"{precision}, one thread, against the same step by transformers' layers",
        rounds=3,
    )


@pytest.mark.parametrize(("size", "pixels", "clips"), [("tiny", 112, 2), ("small", 112, 2), ("tiny", 224, 1)])
def test_the_encoder_against_transformers(compare: Compare, size: str, pixels: int, clips: int) -> None:
    video = torch.randn(clips, FRAMES, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    encoder = make_encoder(size, pixels).eval()
    model = to_transformers(encoder)

    def theirs() -> Tensor:
        return model(pixel_values_videos=video, skip_predictor=True).last_hidden_state

    with torch.inference_mode():
        assert (encoder(video).flatten(1, 2) - theirs()).abs().max() < 2e-5
        compare(
            f"vjepa2_encoder_{size}_{pixels}px",
            lambda: encoder(video),
            theirs,
            f"the V-JEPA 2 encoder {size}, {clips} clips of 16 frames at {pixels} px, fp32, one thread, against "
            "transformers' VJEPA2Model with the same weights",
        )


def test_what_a_dropped_token_saves(compare: Compare) -> None:
    """Time by the share of tokens that are kept: also written to results/vjepa2_tokens.json."""
    video = torch.randn(2, FRAMES, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    encoder = make_encoder("tiny", 224)
    tokens = encoder.tokens * FRAMES // TUBELET

    def step(share: float) -> Callable[[], None]:
        keep = torch.arange(round(share * tokens)).expand(2, -1)
        return lambda: encoder(video, keep).square().mean().backward()

    times = {}
    for share in (0.05, 0.1, 0.25, 0.5):
        compare(
            "vjepa2_tokens",
            step(share),
            step(1.0),
            f"the encoder's forward and backward on {share:.0%} of {tokens} tokens, against all of them",
            rounds=3,
        )
        times[f"{share:.0%}"] = json.loads((RESULTS / "vjepa2_tokens.json").read_text())["seconds"]
    record = json.loads((RESULTS / "vjepa2_tokens.json").read_text())
    record |= {"what": "forward and backward of the encoder by the share of tokens kept, against all", "seconds": times}
    (RESULTS / "vjepa2_tokens.json").write_text(json.dumps(record, indent=2) + "\n")

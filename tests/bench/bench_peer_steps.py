"""`make bench`: training steps against other projects' own code, where it is installed; what is missing is skipped.

    V-JEPA 2    VJEPA2=a checkout of facebookresearch/vjepa2     its encoder, predictor, wrappers and masks' gather
    LeWM        pip install stable-worldmodel transformers       its `LeWM`, predictor, projector and SIGReg

Both sides do the steps of `app/vjepa/train.py` and `scripts/train/lewm.py`: loss, backward, AdamW and, for V-JEPA, the
moving average; V-JEPA from the same weights with the same masks, LeWM without dropout and without the MLP after its
predictor, which OpenJEPA's has not. What counts is CPU time, on one thread.
"""

import copy
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.encoders.frame import FrameEncoder
from jepa.methods.base import Batch, ClipShape
from jepa.methods.lewm import LeWM
from jepa.methods.vjepa import VJEPA
from jepa.models.meta import to_state
from jepa.predictors.causal import CausalPredictor
from jepa.training.optim import adamw
from tests.bench.bench_peers import CpuTime
from tests.bench.bench_vjepa import FRAMES, PATCH, PREDICTOR, STEPS, TUBELET, Step, make_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
Compare = Callable[..., float]
LEWM_CLIPS, LEWM_FRAMES, LEWM_PIXELS, LEWM_ACTION = 2, 4, 224, 10
ADAMW = {"lr": 1e-4, "weight_decay": 0.04, "betas": (0.9, 0.999)}


def meta_modules() -> SimpleNamespace:
    checkout = os.environ.get("VJEPA2")
    if not checkout:
        pytest.skip("VJEPA2 names no checkout of facebookresearch/vjepa2")
    if checkout not in sys.path:
        sys.path.append(checkout)
    names = ("models.vision_transformer", "models.predictor", "utils.wrappers", "masks.utils")
    return SimpleNamespace(**{name.partition(".")[2]: pytest.importorskip(f"src.{name}") for name in names})


class MetaStep:
    """A step of V-JEPA 2's training loop, in fp32, without DDP."""

    def __init__(self, size: str, pixels: int, ours: VJEPA) -> None:
        meta = meta_modules()
        shared = {"img_size": pixels, "patch_size": PATCH, "num_frames": FRAMES, "tubelet_size": TUBELET}
        shared |= {"use_rope": True}
        encoder = meta.vision_transformer.__dict__[f"vit_{size}"](**shared, use_sdpa=True)
        predictor = meta.predictor.vit_predictor(
            **shared,
            embed_dim=encoder.embed_dim,
            predictor_embed_dim=PREDICTOR.width,
            depth=PREDICTOR.depth,
            num_heads=PREDICTOR.heads,
            use_mask_tokens=True,
            num_mask_tokens=len(ours.masks),
        )
        self.encoder = meta.wrappers.MultiSeqWrapper(encoder)
        self.predictor = meta.wrappers.PredictorMultiSeqWrapper(predictor)
        self.apply_masks = meta.utils.apply_masks
        state = to_state(ours.encoder, ours.predictor)
        for module, name in ((self.encoder, "encoder"), (self.predictor, "predictor")):
            module.load_state_dict({key.removeprefix("module."): x for key, x in state[name].items()})
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), **ADAMW)
        self.masks, self.grid = ours.masks, ours.encoder.grid
        self.number = 0

    def _groups(self) -> list[dict[str, Any]]:
        groups = []
        for decayed in (True, False):
            for module in (self.encoder, self.predictor):
                chosen = [p for p in module.parameters() if (p.ndim > 1) == decayed]
                groups.append({"params": chosen} | ({} if decayed else {"weight_decay": 0.0}))
        return groups

    def __call__(self, video: Tensor) -> float:
        self.number += 1
        generator = torch.Generator().manual_seed(self.number)
        drawn = [mask.of(video, self.grid(video), generator) for mask in self.masks]
        seen, hidden = [[pair[0] for pair in drawn]], [[pair[1] for pair in drawn]]
        clips = [video.transpose(1, 2)]
        with torch.no_grad():
            truth = [F.layer_norm(h, (h.size(-1),)) for h in self.target(clips)]
        predicted = self.predictor(self.encoder(clips, seen), seen, hidden)
        expected = [self.apply_masks(h, m, concat=False) for h, m in zip(truth, hidden, strict=True)]
        pairs = [pair for z, h in zip(predicted, expected, strict=True) for pair in zip(z, h, strict=True)]
        loss = sum(torch.mean(torch.abs(z - h) ** 1.0) / 1.0 for z, h in pairs) / len(pairs)
        assert isinstance(loss, Tensor)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            slow, fast = list(self.target.parameters()), list(self.encoder.parameters())
            torch._foreach_mul_(slow, 0.99925)
            torch._foreach_add_(slow, fast, alpha=1 - 0.99925)
        return loss.item()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the names that theirs take from torch and timm
@pytest.mark.parametrize(("size", "pixels", "clips"), STEPS)
def test_a_training_step_against_vjepa2(compare: Compare, size: str, pixels: int, clips: int) -> None:
    video = torch.randn(clips, FRAMES, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    method = VJEPA(VJEPA.Config(predictor=PREDICTOR), make_encoder(size, pixels), ClipShape(FRAMES))
    theirs = MetaStep(size, pixels, method)
    ours = Step(method, "fp32")
    assert ours(video) == pytest.approx(theirs(video), rel=1e-4)
    compare(
        f"peer_vjepa2_step_{size}_{pixels}px",
        CpuTime(lambda: ours(video)),
        CpuTime(lambda: theirs(video)),
        f"a V-JEPA 2 training step, {size}, {clips} clips of 16 frames at {pixels} px, predictor 384/12/12, fp32, one "
        "thread, against V-JEPA 2's own modules from the same weights with the same masks (CPU time)",
        rounds=3,
    )


def our_lewm() -> LeWM:
    """The sizes of configs/pretrain/published/lewm_pusht.yaml."""
    torch.manual_seed(0)
    encoder = FrameEncoder.Config(model="vit_tiny_patch16_224", patch=14, output="pooled", projection=2048)
    predictor = CausalPredictor.Config(
        hidden=192, depth=6, heads=16, head_dim=64, mlp_ratio=2048 / 192, conditioning="adaln", window=3
    )
    weights = {"sigreg_weight": 0.09, "inverse_weight": 0.0, "similarity_weight": 0.0}
    config = LeWM.Config(predictor=predictor, teacher_forced=True, directions=1024, **weights)
    return LeWM(config, FrameEncoder(encoder, LEWM_PIXELS, LEWM_FRAMES), ClipShape(LEWM_FRAMES, LEWM_ACTION))


class TheirLeWM(nn.Module):
    """`lejepa_forward` of stable-worldmodel's scripts/train/lewm.py."""

    def __init__(self) -> None:
        super().__init__()
        from stable_worldmodel.wm.lewm import module  # pyright: ignore[reportMissingImports]
        from stable_worldmodel.wm.lewm.lewm import LeWM as Theirs  # pyright: ignore[reportMissingImports]
        from stable_worldmodel.wm.loss import SIGReg  # pyright: ignore[reportMissingImports]
        from transformers import ViTConfig, ViTModel

        sizes = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
        encoder = ViTModel(ViTConfig(**sizes, image_size=LEWM_PIXELS, patch_size=14), add_pooling_layer=False)
        predictor = module.Predictor(
            num_frames=3, depth=6, heads=16, dim_head=64, mlp_dim=2048, input_dim=192, hidden_dim=192
        )
        projector = module.MLP(192, 2048, 192, norm_fn=nn.BatchNorm1d)
        self.model = Theirs(encoder, predictor, module.Embedder(LEWM_ACTION, emb_dim=192), projector)
        self.sigreg = SIGReg(knots=17, num_proj=1024)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert batch.actions is not None
        actions = F.pad(batch.actions, (0, 0, 0, 1))  # theirs has an action at the last frame too
        output = self.model.encode({"pixels": batch.video, "action": torch.nan_to_num(actions, 0.0)})
        predicted = self.model.predict(output["emb"][:, :3], output["act_emb"][:, :3])
        error = (predicted - output["emb"][:, 1:]).pow(2).mean()
        return {"loss": error + 0.09 * self.sigreg(output["emb"].transpose(0, 1))}


def test_a_training_step_against_lewm_of_stable_worldmodel(compare: Compare) -> None:
    pytest.importorskip("stable_worldmodel.wm.lewm.lewm")
    pytest.importorskip("transformers")
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(LEWM_CLIPS, LEWM_FRAMES, 3, LEWM_PIXELS, LEWM_PIXELS, generator=generator)
    batch = Batch(video, torch.randn(LEWM_CLIPS, LEWM_FRAMES - 1, LEWM_ACTION, generator=generator))

    def step(method: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
        def run() -> float:
            loss = method.loss(batch, torch.Generator().manual_seed(0))["loss"]  # pyright: ignore[reportCallIssue]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return run

    method, theirs = our_lewm(), TheirLeWM()
    counts = [sum(p.numel() for p in module.parameters()) for module in (method, theirs)]
    assert counts[0] == pytest.approx(counts[1], rel=0.03)  # 15 M
    compare(
        "peer_lewm_step_224px",
        CpuTime(step(method, adamw(method, **ADAMW))),
        CpuTime(step(theirs, torch.optim.AdamW(theirs.parameters(), **ADAMW))),
        f"a LeWM training step at published sizes (ViT-tiny/14 at 224 px, 6 causal layers), {LEWM_CLIPS} clips of "
        f"{LEWM_FRAMES} frames, fp32, one thread, against stable-worldmodel's LeWM, predictor and SIGReg (CPU time)",
        rounds=3,
    )

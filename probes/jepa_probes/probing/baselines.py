"""What is known without pretraining. Every score is printed beside the same probe on these.

random_init   the same architecture, never trained
pixels        the frames of a step, shrunk and side by side
pca_pixels    as many principal components of them as the model has numbers per step
supervised    the same architecture, trained on the true states for the same steps on the same clips
(the mean predictor and the majority class are in state.py and labels.py)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from jepa.training.config import PretrainConfig
from jepa.training.optim import optimizer_of, schedule_of
from jepa.training.trainer import precision
from jepa.world_model import LatentWorldModel
from jepa_data.config import StreamConfig
from jepa_data.stream.loader import make_loader
from jepa_data.types import ClipBatch
from jepa_probes.probing.features import Encode, Features
from jepa_probes.probing.reduction import principal_components
from jepa_probes.probing.state import find_targets, moving_or_all

Prepare = Callable[[UInt8[Tensor, "B T C h w"]], Float[Tensor, "B T C h w"]]


def pixels(frames_per_step: int, side: int) -> Encode:
    """Frames averaged to `side` x `side` pixels, 0..1; the frames of a step make one token.

    A ridge probe reads most at 8 px from a plain table: R² of the puck's state is 0.94 at 8 px, 0.91 at 16 and 0.79 at
    32 on billiards-easy, 0.60, 0.57 and 0.53 on medium, 0.09, 0.08 and 0.08 on hard (500 episodes; 16 and 32 px cut to
    1,024 components). Blurred discs are nearly linear in their position. Before a mosaic, 16 px are better.
    """

    def encode(video: UInt8[Tensor, "B T C h w"]) -> Float[Tensor, "B S 1 D"]:
        whole = video.shape[1] - video.shape[1] % frames_per_step
        frames = video[:, :whole].float() / 255
        small = F.adaptive_avg_pool2d(frames.flatten(0, 1), min(side, *frames.shape[-2:]))
        return small.reshape(len(video), whole // frames_per_step, 1, -1)

    return encode


def encode_with(model: LatentWorldModel, encoder: nn.Module) -> Encode:
    """Another encoder in the place of the model's."""

    @torch.no_grad()
    def encode(video: UInt8[Tensor, "B T C h w"]) -> Float[Tensor, "B S N D"]:
        return encoder(model.prepare_clips(video))

    return encode


def pca_pixels(train: Features, test: Features, width: int) -> tuple[Features, Features]:
    """The first `width` principal components of pixel features, fitted on the training clips."""
    mean = train.latents.mean((0, 1, 2))
    basis, _ = principal_components(train.latents.flatten(0, 2) - mean, width)

    def reduced(part: Features) -> Features:
        return replace(part, latents=(part.latents - mean) @ basis)

    return reduced(train), reduced(test)


def random_init(
    make_encoder: Callable[[], nn.Module], seed: int, batches: Iterable[ClipBatch], prepare: Prepare
) -> nn.Module:
    """A fresh encoder in evaluation mode.

    BatchNorm layers get the running statistics of `batches` (training clips): with the untouched ones (mean 0,
    variance 1) they would pass everything through unscaled, a handicap that no trained encoder has.

    Args:
        prepare: uint8 clips to what the encoder reads, such as `LatentWorldModel.prepare_clips`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = make_encoder()
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # the plain mean over all batches
        encoder.train()
        with torch.no_grad():
            for batch in batches:
                encoder(prepare(batch.video))
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
    return encoder.eval().requires_grad_(False)


def train_supervised_like(
    trained: PretrainConfig,
    make_encoder: Callable[[], nn.Module],
    data: StreamConfig,
    prepare: Prepare,
    state_names: Sequence[str],
) -> nn.Module:
    """`train_supervised` with the budget of a pretraining run: its seed, steps, optimizer, schedule and precision."""
    return train_supervised(
        make_encoder,
        make_loader(data, "train", seed=trained.seed, total_batches=trained.trainer.steps),
        prepare,
        state_names,
        seed=trained.seed,
        make_optimizer=optimizer_of(trained.optimizer),
        lr_factor=schedule_of(trained),
        clip_norm=trained.trainer.clip_norm,
        bf16=precision(trained.trainer) == "bf16-mixed",
    )


def train_supervised(
    make_encoder: Callable[[], nn.Module],
    batches: Iterable[ClipBatch],
    prepare: Prepare,
    state_names: Sequence[str],
    *,
    seed: int,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    lr_factor: Callable[[int], float],
    clip_norm: float | None = 1.0,
    bf16: bool = False,
) -> nn.Module:
    """An encoder trained with a linear head on positions and velocities, or on all states where there are none of
    these (see state.py); the head is thrown away.

    Equal budget is up to the caller: `batches` of the same length and size as pretraining saw, its optimizer, schedule,
    clipping and precision. Squared errors of targets scaled by the first batch; what is NaN or infinite does not count.

    Args:
        make_encoder: its encoder tells `tokens` and `width`, as all of jepa.encoders do.
        batches: training clips with states; one optimizer step each.
        state_names: of the columns of `ClipBatch.states`.

    Raises:
        ValueError: there are no states, a batch has none, or there is no batch.
    """
    columns = [t.column for t in moving_or_all(find_targets(state_names))]
    if not columns:
        raise ValueError("a supervised encoder needs states to learn, found none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Regression(make_encoder(), len(columns)).train()
        optimizer = make_optimizer(model)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)
        for batch in batches:
            if batch.states is None:
                raise ValueError("a supervised encoder needs clips with states")
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                predicted = model(prepare(batch.video))
            optimizer.zero_grad()
            model.loss(predicted, batch.states[..., columns]).backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            schedule.step()
    if model.mean is None:
        raise ValueError("a supervised encoder needs at least one batch")
    return model.encoder.eval().requires_grad_(False)


class _Regression(nn.Module):
    """An encoder and a linear head from all tokens of a step to its state."""

    def __init__(self, encoder: nn.Module, columns: int) -> None:
        super().__init__()
        width: int = encoder.tokens * encoder.width  # pyright: ignore[reportAssignmentType, reportOperatorIssue]
        self.encoder = encoder
        self.head = nn.Linear(width, columns)
        self.mean: Tensor | None = None
        self.deviation = torch.ones(columns)

    def forward(self, video: Float[Tensor, "B T C h w"]) -> Float[Tensor, "B S X"]:
        return self.head(self.encoder(video).flatten(2))

    def loss(self, predicted: Float[Tensor, "B S X"], states: Float[Tensor, "B T X"]) -> Float[Tensor, ""]:
        """Mean squared error at the last frame of each step, in standard deviations of the first batch."""
        per_step = states.shape[1] // predicted.shape[1]
        truth = states[:, per_step - 1 :: per_step]
        if self.mean is None:
            self.mean, self.deviation = _scaling(truth)
        there = truth.isfinite()
        if not there.any():
            return 0.0 * predicted.float().sum()
        return (predicted.float() - (truth - self.mean) / self.deviation)[there].square().mean()


def _scaling(truth: Float[Tensor, "B S X"]) -> tuple[Float[Tensor, " X"], Float[Tensor, " X"]]:
    """Mean and standard deviation by column, of what is there; 1 for a column that does not vary."""
    rows = torch.where(truth.isfinite(), truth, torch.nan).flatten(0, 1)
    mean = rows.nanmean(0).nan_to_num()
    deviation = (rows - mean).square().nanmean(0).sqrt()
    varies = rows.nan_to_num(torch.inf).amin(0) < rows.nan_to_num(-torch.inf).amax(0)  # its rounded mean may be off it
    return mean, torch.where(varies & (deviation > 1e-6), deviation, 1.0)

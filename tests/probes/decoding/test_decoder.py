"""`jepa decoder`: fits, measures, writes, is used by others, and refuses what does not fit."""

from pathlib import Path

import pytest
import torch

import jepa
from jepa.config import UserError
from jepa.training.run_state.run_folder import run_config
from jepa_probes.decoding.decoder import table
from jepa_probes.decoding.result import DecoderResult
from jepa_probes.reporting.run_decoder import pixel_decoder, saved_decoder

TRAINING = """
run: RUN
data: {shards: SHARDS, batch_size: 8, clip_frames: 6}
encoder: ENCODER
method: METHOD
trainer: {steps: 2, device: cpu}
"""
QUICK = ["steps=4", "clips=16", "test_clips=3"]
CONV = "{kind: conv, width: 8, channels: 8, hidden: 32}"
LEWM = "{kind: lewm, directions: 16, predictor: {hidden: 16}}"

pytestmark = pytest.mark.usefixtures("one_thread")


def train(corpus: Path, folder: Path, encoder: str = CONV, method: str = LEWM, *overrides: str) -> Path:
    config, run = folder / "train.yaml", folder / "run"
    text = TRAINING.replace("RUN", str(run)).replace("SHARDS", str(corpus))
    config.write_text(text.replace("ENCODER", encoder).replace("METHOD", method))
    jepa.pretrain(config, overrides)
    return run


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("decoder"))


def test_a_decoder_is_fitted_measured_and_used_from_then_on(run: Path) -> None:
    result = jepa.fit_decoder(run, None, QUICK)
    assert result == DecoderResult.read(run) and (run / "decoder.png").is_file()
    assert result.frames == 3 * 3 and result.seconds is not None and result.milliseconds is not None
    assert set(result.objects) <= {"puck", "body0", "body1"} and "puck" in result.objects
    model, training = jepa.load(run), run_config(run)
    decoder = pixel_decoder(run, model, training)
    assert decoder is not None and decoder.config.kind == "pixels"
    again = jepa.fit_decoder(run, None, QUICK)
    assert again.seconds is None and again.psnr == pytest.approx(result.psnr)
    with pytest.raises(UserError, match="other settings is here; give overwrite=true"):
        jepa.fit_decoder(run, None, [*QUICK, "decoder.hidden=32"])
    assert "PSNR, dB" in "\n".join(table(result))


def test_the_kind_that_was_fitted_last_is_used(run: Path, tmp_path: Path) -> None:
    small = ["decoder.kind=diffusion", "decoder.hidden=16", "decoder.depth=1", "decoder.heads=2", "decoder.patch=8"]
    result = jepa.fit_decoder(run, None, [*QUICK, *small], out=tmp_path / "out")
    assert result.kind == "diffusion" and (tmp_path / "out" / "diffusion").is_dir()
    model = jepa.load(run)
    decoder = saved_decoder(run, model, out=tmp_path / "out")
    assert decoder is not None and decoder.config.kind == "diffusion"
    z = torch.randn(1, 2, 1, 8)
    assert torch.equal(decoder.decode(z), decoder.decode(z))


def test_own_decoders_are_taken_from_the_run(corpus: Path, tmp_path: Path, run: Path) -> None:
    small = "{recurrent_size: 16, hidden: 16, blocks: 2, categoricals: 4, classes: 4, normalize_actions: false}"
    method = f"{{kind: dreamer, predict: nothing, decoder_channels: 8, predictor: {small}}}"
    dreamer = train(corpus, tmp_path, CONV, method)
    result = jepa.fit_decoder(dreamer, None, [*QUICK, "own=true"])
    assert result.kind == "dreamer" and result.steps is None
    decoder = pixel_decoder(dreamer, jepa.load(dreamer), run_config(dreamer))
    assert decoder is not None and decoder.config.kind == "dreamer"
    assert decoder.decode(torch.randn(2, 3, 1, 8)).shape == (2, 3, 3, 32, 32)
    with pytest.raises(UserError, match="method lewm trains no decoder of latents"):
        jepa.fit_decoder(run, None, ["own=true"])
    with pytest.raises(UserError, match="dreamer is not fitted; own=true"):
        jepa.fit_decoder(run, None, ["decoder={kind: dreamer, features: 4}"])


def test_a_model_that_is_trained_again_loses_its_decoder(corpus: Path, tmp_path: Path) -> None:
    run = train(corpus, tmp_path)
    jepa.fit_decoder(run, None, QUICK)
    jepa.pretrain(tmp_path / "train.yaml", ["trainer.steps=3"], resume=True)
    assert not (run / "model" / "pixels").exists()

"""An encoder with reductions of its tokens: what it holds, how it is fitted, and how it is compressed further."""

from typing import Any

import pytest
import torch

from jepa.config import ConfigError, from_dict
from jepa.encoders.compressed import CompressedEncoder
from jepa.encoders.reductions.base import TokenLayout
from jepa.encoders.reductions.chain import Chain, fit, parse
from jepa.models.build import build_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
VIT = {"kind": "video_vit", "patch": 8, "width": 24, "depth": 1, "heads": 2}
REDUCTIONS = [{"kind": "pool", "rows": 2, "columns": 2}, {"kind": "pca", "width": 5}]


def config(**changes: Any) -> CompressedEncoder.Config:
    return from_dict({"of": VIT, "reductions": REDUCTIONS} | changes, CompressedEncoder.Config)


def made(described: CompressedEncoder.Config) -> CompressedEncoder:
    torch.manual_seed(0)
    encoder = build_encoder(described, 32, 4)
    assert isinstance(encoder, CompressedEncoder)
    return encoder.eval()


@torch.no_grad()
def test_it_is_the_encoder_and_then_the_reductions_which_fit_computes_from_clips() -> None:
    encoder = made(config())
    video = torch.randn(20, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder.fit(video)
    tokens = encoder.encoder(video)
    assert tokens.shape == (20, 4, 16, 24), "a video encoder is shown one frame at a time"
    chain = Chain(config().reductions, TokenLayout.square(16, 24))
    fit([chain], lambda: [tokens.flatten(0, 1)])
    torch.testing.assert_close(encoder(video), chain(tokens), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        encoder.feature_map(video).flatten(2, 3), chain.expand(chain(tokens)), atol=1e-3, rtol=1e-3
    )
    assert encoder(video).shape == (20, 4, encoder.tokens, encoder.width) == (20, 4, 4, 5)
    assert encoder.clips_to_fit and not made(config(reductions=REDUCTIONS[:1])).clips_to_fit


@torch.no_grad()
def test_what_is_compressed_twice_is_one_encoder_with_both_reductions() -> None:
    first = made(config(encoder_sha256="of the encoder"))
    video = torch.randn(6, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    first.fit(video)
    chain = Chain(parse("joint_pca:3"), first.chain.layout)
    fit([chain], lambda: [first(video).flatten(0, 1)])
    both = CompressedEncoder.around(first, chain, "of the compressed one").eval()
    torch.testing.assert_close(both(video), chain(first(video)))
    assert [each.short for each in both.config.reductions] == ["pool:2x2", "pca:5", "joint_pca:3"]
    assert both.config.encoder_sha256 == "of the encoder" and both.encoder is first.encoder


def test_configs_are_alike_where_weights_fit() -> None:
    assert config(encoder_sha256="a").weights_key() == config().weights_key()
    assert config(of=VIT | {"width": 48}).weights_key() != config().weights_key()
    assert config(reductions=REDUCTIONS[:1]).weights_key() != config().weights_key()
    assert config().per_frame() == config() and config().of.kind == "per_frame"
    assert config().summary() == "reduced by pool:2x2 then pca:5"


def test_an_encoder_is_compressed_by_one_list_of_reductions() -> None:
    with pytest.raises(ConfigError, match="another kind than compressed; list all reductions in one"):
        config(of={"kind": "compressed", "of": VIT, "reductions": REDUCTIONS})
    with pytest.raises(ConfigError, match="reductions"):
        config(reductions=[])

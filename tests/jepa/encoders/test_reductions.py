"""Reductions of tokens against what numpy says, and against cases where the right answer is plain."""

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa.encoders.reductions.base import TokenLayout
from jepa.encoders.reductions.chain import Chain, fit, parse, short, variance_kept
from jepa.encoders.reductions.merge import joined, neighbors

pytestmark = pytest.mark.usefixtures("one_thread")


def tokens(steps: int, count: int, width: int, seed: int = 0) -> Tensor:
    """Correlated latents [R, N, D] whose places have means of their own."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(count * width, count * width, generator=g) * torch.linspace(1, 0.05, count * width)
    z = torch.randn(steps, count * width, generator=g) @ mixing.T
    return z.view(steps, count, width) + 5 * torch.randn(count, width, generator=g)


def fitted(text: str, z: Tensor, *, batch: int = 16) -> Chain:
    chain = Chain(parse(text), TokenLayout.square(*z.shape[1:]))
    fit([chain], lambda: z.split(batch))
    return chain


def test_pooling_is_the_mean_of_each_block() -> None:
    z = tokens(3, 16, 2)
    pooled = fitted("pool:2x1", z)(z)
    by_hand = torch.stack([z[:, :8].mean(1), z[:, 8:].mean(1)], 1)
    torch.testing.assert_close(pooled, by_hand)
    torch.testing.assert_close(fitted("pool:1x1", z)(z)[:, 0], z.mean(1))
    corner = z.view(3, 4, 4, 2)[:, 2:, :2].mean((1, 2))
    torch.testing.assert_close(fitted("pool:2x2", z)(z)[:, 2], corner)
    torch.testing.assert_close(fitted("pool:4x4", z)(z), z)


@pytest.mark.parametrize("width", [1, 4])
def test_components_are_those_of_numpy(width: int) -> None:
    z = tokens(200, 4, 6)
    chain = fitted(f"pca:{width}", z)
    rows = (z - z.mean(0)).double().flatten(0, 1).numpy()
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    basis = chain.reductions[0].basis.double().numpy()
    np.testing.assert_allclose(basis @ basis.T, axes[:width].T @ axes[:width], atol=1e-5)
    share = (values[:width] ** 2).sum() / (values**2).sum()
    assert variance_kept(z, chain.expand(chain(z))) == pytest.approx(share, abs=1e-5)
    reduced = chain(z)
    assert reduced.shape == (200, 4, width)
    assert reduced.square().mean().item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(reduced.mean(0), torch.zeros(4, width), atol=1e-4, rtol=0)


def test_components_of_all_tokens_together_are_those_of_numpy() -> None:
    z = tokens(200, 4, 6)
    chain = fitted("joint_pca:5", z)
    rows = (z - z.mean(0)).double().flatten(1).numpy()
    _, values, axes = np.linalg.svd(rows, full_matrices=False)
    basis = chain.reductions[0].basis.double().numpy()
    np.testing.assert_allclose(basis @ basis.T, axes[:5].T @ axes[:5], atol=1e-5)
    assert chain(z).shape == (200, 1, 5)
    share = (values[:5] ** 2).sum() / (values**2).sum()
    assert variance_kept(z, chain.expand(chain(z))) == pytest.approx(share, abs=1e-5)


def test_all_components_lose_nothing_and_keep_distances() -> None:
    z = tokens(100, 4, 6)
    for text in ("pca:6", "joint_pca:24"):
        chain = fitted(text, z)
        torch.testing.assert_close(chain.expand(chain(z)), z, atol=1e-4, rtol=1e-4)
        before = (z[:50] - z[50:]).flatten(1).norm(dim=1)
        after = (chain(z[:50]) - chain(z[50:])).flatten(1).norm(dim=1)
        ratio = before / after
        torch.testing.assert_close(ratio, ratio[:1].expand(50), rtol=1e-4, atol=0)


def test_a_fit_in_batches_is_the_fit_to_all() -> None:
    z = tokens(90, 4, 6)
    for text in ("pca:3", "merge:2", "joint_pca:3", "merge:2+pca:3"):
        whole, parts = fitted(text, z, batch=90), fitted(text, z, batch=7)
        torch.testing.assert_close(whole(z), parts(z), atol=1e-4, rtol=1e-4)


def test_components_spend_nothing_on_what_is_constant_in_a_place() -> None:
    g = torch.Generator().manual_seed(0)
    moving = torch.randn(80, 4, 1, generator=g)
    codes = 100 * torch.randn(4, 3, generator=g)
    z = torch.cat([torch.zeros(80, 4, 2), moving], 2) + codes
    chain = fitted("pca:1", z)
    torch.testing.assert_close(chain.reductions[0].basis[:, 0].abs(), torch.tensor([0.0, 0.0, 1.0]), atol=1e-3, rtol=0)
    assert variance_kept(z, chain.expand(chain(z))) == pytest.approx(1, abs=1e-4)


def test_places_that_vary_alike_are_merged() -> None:
    g = torch.Generator().manual_seed(0)
    sources = torch.randn(200, 3, 4, generator=g)
    source_of_place = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2])
    scale = torch.linspace(0.1, 3, 16)[:, None]
    z = sources[:, source_of_place] * scale + 10 * torch.randn(16, 4, generator=g)  # other sizes, other constants
    chain = fitted("merge:3", z)
    average = chain.reductions[0].average
    assert torch.equal(average.argmax(0), source_of_place)
    torch.testing.assert_close(chain(z)[:, 1], z[:, source_of_place == 1].mean(1))
    torch.testing.assert_close(average.sum(1), torch.ones(3))


def test_only_neighbors_are_merged_and_places_that_never_change_are_merged_first() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(300, 9, 2, generator=g)
    z[:, 8] = z[:, 0]  # far apart: the corners
    z[:, 3:6] = 7.0
    token = fitted("merge:7", z).reductions[0].average.argmax(0)
    assert token[0] != token[8]
    assert len(set(token[3:6].tolist())) == 1
    loose = Chain(parse("merge:8"), TokenLayout(9, 2, None))
    fit([loose], lambda: [z[:, [0, 1, 2, 6, 7, 8, 0, 1, 2]] * torch.linspace(0.5, 2, 9)[:, None]])
    assert loose.reductions[0].average.shape == (8, 9)


def test_sets_are_joined_by_the_criterion() -> None:
    points = np.random.default_rng(0).normal(size=(7, 3))
    touching = neighbors((1, 7))
    sets = [[i] for i in range(7)]
    while len(sets) > 3:  # neighbors in a row stay neighbors in the list
        means = [points[each].mean(0) for each in sets]
        sizes = [len(each) for each in sets]
        cost = [sizes[i] * sizes[i + 1] * ((means[i] - means[i + 1]) ** 2).sum() for i in range(len(sets) - 1)]
        at = int(np.argmin(cost))
        sets[at : at + 2] = [sets[at] + sets[at + 1]]
    expected = np.repeat(np.arange(3), [len(each) for each in sets])
    np.testing.assert_array_equal(joined(points @ points.T, touching, 3), expected)


def test_reductions_follow_each_other() -> None:
    z = tokens(100, 16, 6)
    chain = fitted("pool:2x2+pca:3", z)
    first = fitted("pool:2x2", z)(z)
    torch.testing.assert_close(chain(z), fitted("pca:3", first)(first), atol=1e-4, rtol=1e-4)
    assert (chain.layout.tokens, chain.layout.width, chain.layout.grid) == (4, 3, (2, 2))
    assert chain.expand(chain(z)).shape == z.shape
    assert chain(z.view(10, 10, 16, 6)).shape == (10, 10, 4, 3)


def test_the_variance_that_is_kept_is_that_about_the_mean_of_each_place() -> None:
    z = torch.tensor([[[0.0, 4.0]], [[2.0, 8.0]]])  # variances 1 and 4
    assert variance_kept(z, z + 100) == pytest.approx(1)
    assert variance_kept(z, z * torch.tensor([1.0, 0.0])) == pytest.approx(0.2)
    assert variance_kept(torch.ones(3, 1, 2), torch.zeros(3, 1, 2)) == 1


def test_the_short_form_is_read_and_written() -> None:
    for text in ("pool:2x4", "merge:16", "pca:32", "joint_pca:8", "pool:2x2+pca:4"):
        assert short(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "pol:2x2",
            "expected KIND:SIZE of the kinds pool, merge, pca, joint_pca, found 'pol:2x2'; did you mean 'pool'",
        ),
        ("pool:2", "expected pool:ROWSxCOLUMNS in whole numbers, found 'pool:2'"),
        ("pca", "expected pca:WIDTH in whole numbers, found 'pca:'"),
        ("merge:0", "expected merge:TOKENS"),
        ("pca:-3", "expected pca:WIDTH"),
    ],
)
def test_a_mistake_in_the_short_form_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "layout", "message"),
    [
        ("pool:3x2", TokenLayout.square(16, 8), r"pool:3x2: expected rows .* the grid of 4x4 tokens .*, found 3x2"),
        ("merge:4+pool:2x2", TokenLayout.square(16, 8), "found 4 without places in the image; put pool first"),
        ("merge:17", TokenLayout.square(16, 8), "merge:17: expected at most the 16 tokens"),
        ("pca:9", TokenLayout.square(16, 8), "pca:9: expected at most the 8 numbers"),
        ("joint_pca:64", TokenLayout.square(64, 128), r"found 64 x 128; reduce .* as in pca:64\+joint_pca:64"),
    ],
)
def test_what_does_not_fit_the_tokens_is_refused(text: str, layout: TokenLayout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain(parse(text), layout)


def test_too_few_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="joint_pca:5: expected more than 5 training latents to fit to, found 4"):
        fitted("joint_pca:5", tokens(4, 4, 6))

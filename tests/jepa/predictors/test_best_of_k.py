"""Draws are for futures that differ: best-of-K error falls with K where there are two, and nowhere else."""

import pytest
import torch

from jepa.predictors.base import Predictor
from jepa.predictors.cdit import CDiT
from jepa.predictors.mdn_rnn import MDNRNN
from jepa.predictors.mlp import MLPPredictor
from jepa.predictors.rssm import RSSM
from tests.jepa.predictors.two_futures import ACTION, WIDTH, best_of, train

pytestmark = pytest.mark.usefixtures("one_thread")


def make(kind: str) -> Predictor:
    torch.manual_seed(0)
    if kind == "mlp":
        return MLPPredictor(MLPPredictor.Config(hidden=32), WIDTH, ACTION)
    if kind == "mdn_rnn":
        return MDNRNN(MDNRNN.Config(hidden=32), WIDTH, ACTION)
    if kind == "cdit":
        return CDiT(CDiT.Config(hidden=32, depth=1, heads=2, context=1), WIDTH, ACTION)
    sizes = {"recurrent_size": 32, "hidden": 32, "blocks": 4, "categoricals": 4, "classes": 4}
    return RSSM(RSSM.Config(**sizes, free_nats=0.1), WIDTH, ACTION)


KINDS = ["mlp", "mdn_rnn", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("rssm", "cdit"))]


@pytest.mark.parametrize("kind", KINDS)
def test_best_of_k_falls_where_the_future_is_one_of_two(kind: str) -> None:
    predictor = train(make(kind), certain=False, steps=300)
    one, eight = (best_of(predictor, k, certain=False) for k in (1, 8))
    if kind == "mlp":  # the mean of both futures is 1 away from either
        assert one == eight == pytest.approx(1, abs=0.15)
    else:  # half of the single draws are 2 away
        assert one == pytest.approx(2, abs=0.5)
        # A mixture draws the two numbers of a latent independently: (3/4)^8 of the clips have no draw with both right.
        assert eight < (0.4 if kind == "mdn_rnn" else 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_best_of_k_is_flat_where_the_future_is_certain(kind: str) -> None:
    predictor = train(make(kind), certain=True, steps=300)
    one, eight = (best_of(predictor, k, certain=True) for k in (1, 8))
    assert one < 0.01  # of numbers whose variance is about 0.1
    assert one - eight < 0.01

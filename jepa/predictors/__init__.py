"""Predictors: from latents and actions to the next latents; `masked` from visible tokens to hidden ones."""

from jepa.config import Parts

PREDICTORS = Parts(  # that learn what actions do; built over (width, action_size, grid)
    "predictors",
    "jepa.predictors.base:Predictor",
    mlp="jepa.predictors.mlp:MLPPredictor",
    gru="jepa.predictors.gru:GRUPredictor",
    causal="jepa.predictors.causal:CausalPredictor",
    mdn_rnn="jepa.predictors.mdn_rnn:MDNRNN",
    rssm="jepa.predictors.rssm:RSSM",
    latent_variable="jepa.predictors.latent_variable:LatentVariablePredictor",
    unrolled="jepa.predictors.unrolled:UnrolledPredictor",
    hybrid="jepa.predictors.hybrid:HybridPredictor",
    cdit="jepa.predictors.cdit:CDiT",
)


def reading_patches(*, distributions: bool = True) -> str:
    """Names of the predictors of latents with several tokens, for messages."""
    kinds = [kind for kind in PREDICTORS if PREDICTORS[kind].reads_patches]
    return ", ".join(kind for kind in kinds if distributions or not PREDICTORS[kind].distribution)

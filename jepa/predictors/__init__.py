"""Predictors: from latents and actions to the next latents; `masked` from visible tokens to hidden ones."""

from jepa.config import Parts

PREDICTORS = Parts(  # that learn what actions do; built over (width, action_size, grid)
    "predictors",
    "jepa.predictors.base:Predictor",
    mlp="jepa.predictors.mlp:MLPPredictor",
    gru="jepa.predictors.gru:GRUPredictor",
    causal="jepa.predictors.causal:CausalPredictor",
)

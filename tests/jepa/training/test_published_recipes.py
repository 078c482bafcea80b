"""The recipes of the papers: every config builds, and has the parameters that were published (in millions)."""

from pathlib import Path

import pytest
import torch

from jepa.config import load
from jepa.encoders.frame import FrameEncoder
from jepa.methods.dino_wm import DinoWM
from jepa.methods.latent_dynamics import LatentDynamics
from jepa.methods.levjepa import LeVJEPA
from jepa.methods.lewm import LeWM
from jepa.methods.nwm import NWM
from jepa.methods.pldm import PLDM
from jepa.methods.vae import VAE
from jepa.methods.vjepa import VJEPA
from jepa.methods.vjepa_ac import VJEPAAC
from jepa.training.build_method import build_method
from jepa.training.config import PretrainConfig
from jepa.training.optim import optimizer_of, schedule_of

ROOT = Path(__file__).parents[3]
RECIPES = {path.stem: path for path in (ROOT / "configs" / "pretrain" / "published").rglob("*.yaml")}
# V-JEPA 2's to the last digit published (304, 632 and 1012 M; predictors of 22 M). V-JEPA 2.1 and LeVJEPA publish names
# of sizes only (80 M, 300 M, 1 B, 2 B; ViT-B and L).
PUBLISHED = {
    "vjepa2_vitl": (303.9, 22.1),
    "vjepa2_vitl_cooldown": (303.9, 22.1),
    "vjepa2_vith": (631.6, 22.3),
    "vjepa2_vith_cooldown": (631.6, 22.3),
    "vjepa2_vitg": (1012.2, 22.4),
    "vjepa2_vitg_cooldown": (1012.2, 22.4),
    "vjepa2_1_vitb": (86.8, None),
    "vjepa2_1_vitl": (304.7, None),
    "vjepa2_1_vitg": (1013.3, None),
    "vjepa2_1_vitg_2b": (1845.2, None),
    "levjepa_vitb": (85.6, None),
    "levjepa_vitl": (303.1, None),
    "world_models_vae": (0.82, None),
}
# Of methods with actions: the method, numbers in an action of the clips, parameters of encoder and dynamics. Published
# are 2-AC's 1012 and 305.2 M, EB-JEPA's 1.43 M (two channels) and 0.79 M, LeWM's 15 M in all (here 5.5 + 10.9 M and the
# encoder's MLP of 0.8 M; without the modulation of its blocks, 1.3 M, they are 15.0). DINOv2-S/14 has 22 M at 518 px.
ACTING = {
    "vjepa2_ac": (VJEPAAC, 7, 1012.2, 305.2),
    "dino_wm_pusht": (DinoWM, 10, 21.6, 20.2),
    "dino_wm_pointmaze": (DinoWM, 10, 21.6, 20.2),
    "jepa_wm_pusht": (DinoWM, 10, 21.6, 16.3),
    "lewm_pusht": (LeWM, 10, 6.3, 10.9),
    "nwm_doom_rooms": (NWM, 6, 303.9, 1014.4),
    "eb_jepa_two_rooms": (PLDM, 2, 1.43, 0.79),
    "pldm_two_rooms": (PLDM, 2, 1.43, 0.79),
    "world_models_doom": (LatentDynamics, 1, 0.82, 1.68),
}


def test_every_recipe_is_in_the_table():
    assert set(RECIPES) == set(PUBLISHED) | set(ACTING)


@pytest.mark.parametrize("name", ACTING)
def test_a_recipe_with_actions_builds_and_has_the_published_parameters(name: str):
    kind, actions, encoder, dynamics = ACTING[name]
    path = RECIPES[name]
    text = path.read_text()
    changes = ["encoder.pretrained=false"] if "pretrained" in text else []  # nothing is downloaded here
    config = load(path, PretrainConfig, changes + (["method.encoder_from=null"] if "encoder_from" in text else []))
    assert config.data.image_size is not None
    with torch.device("meta"):
        method = build_method(config, config.data.image_size, actions)
    assert type(method) is kind and isinstance(method.dynamics, torch.nn.Module)
    assert millions(method.encoder) == pytest.approx(encoder, abs=0.05)
    assert millions(method.dynamics) == pytest.approx(dynamics, abs=0.05)
    header = text.splitlines()
    assert header[0] == f"# jepa pretrain {path.relative_to(ROOT)}"
    assert any("not run here" in line for line in header[:4]), "says that it was not run"


@pytest.mark.parametrize("name", ACTING)
def test_the_schedule_of_a_recipe_with_actions_fits_its_steps(name: str):
    config = load(RECIPES[name], PretrainConfig)
    factor = schedule_of(config)
    assert 0 < factor(0) <= 1 and 0 <= factor(config.trainer.steps) <= 1
    groups = optimizer_of(config.optimizer)(torch.nn.Linear(2, 2)).param_groups
    assert groups[0]["lr"] == config.optimizer.lr


def test_what_the_papers_say_of_their_losses():
    ac, dino, wms, lewm = (
        load(RECIPES[name], PretrainConfig).method
        for name in ("vjepa2_ac", "dino_wm_pusht", "jepa_wm_pusht", "lewm_pusht")
    )
    assert ac.kind == "vjepa_ac" and (ac.distance, ac.rollout_steps, ac.detach_rollout) == ("l1", 2, False)
    assert dino.kind == "dino_wm" and (dino.distance, dino.rollout_steps) == ("l2", 0)
    assert dino.predictor.conditioning == "concat" and dino.predictor.window == 3
    assert wms.kind == "dino_wm" and (wms.distance, wms.rollout_steps, wms.detach_rollout) == ("l2", 2, True)
    assert wms.predictor.conditioning == "adaln"
    assert lewm.kind == "lewm" and lewm.teacher_forced and lewm.inverse_weight == lewm.similarity_weight == 0
    factor = schedule_of(load(RECIPES["vjepa2_ac"], PretrainConfig))
    rates = [4.25e-4 * factor(step) for step in (0, 4499, 50_000, 94_499)]
    assert rates == pytest.approx([7.5e-5, 4.25e-4, 4.25e-4, 0], abs=1.2e-7)


def test_lewms_fifteen_million_parameters():
    config = load(RECIPES["lewm_pusht"], PretrainConfig)
    with torch.device("meta"):
        method = build_method(config, 224, 10)
    assert isinstance(method, LeWM) and isinstance(method.encoder, FrameEncoder)
    modulation = sum(millions(block.modulation) for block in method.dynamics.predictor_blocks)  # pyright: ignore
    assert millions(method.encoder.backbone) + millions(method.dynamics) - modulation == pytest.approx(15.0, abs=0.1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_parameters(name: str):
    path = RECIPES[name]
    config = load(path, PretrainConfig)
    assert config.data.image_size is not None
    with torch.device("meta"):
        method = build_method(config, config.data.image_size, 0)
    encoder, predictor = PUBLISHED[name]
    assert millions(method.encoder) == pytest.approx(encoder, abs=0.05)
    kinds = {"levjepa": LeVJEPA, "world": VAE}
    assert isinstance(method, kinds.get(name.split("_")[0], VJEPA))
    if predictor is not None:
        assert isinstance(method, VJEPA) and millions(method.predictor) == pytest.approx(predictor, abs=0.05)
    header = path.read_text().splitlines()
    assert header[0] == f"# jepa pretrain {path.relative_to(ROOT)}"
    assert any("not run here" in line for line in header[:4]), "says that it was not run"


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("vitb", (2, 5, 8, 11)),
        ("vitl", (5, 11, 17, 23)),
        ("vitg", (9, 19, 29, 39)),
        ("vitg_2b", (11, 23, 37, 47)),
    ],
)
def test_levels_are_those_of_v_jepa_2_1(name: str, levels: tuple[int, ...]):
    encoder = load(RECIPES[f"vjepa2_1_{name}"], PretrainConfig).encoder
    assert encoder is not None and encoder.levels == levels


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6

"""From the config of a comparison to its cells: each model with each seed, and the baselines.

encoder_of: lewm      mlp-0 ──after──> lewm-0        mlp-1 ──after──> lewm-1
reference: mlp        identity-0, shuffled_actions-0 ──after──> mlp-0;   random_encoder-0 is trained like mlp-0;
                      and after it where that reads stored latents, for as many steps
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa.config import UserError, from_dict
from jepa.models.model import model_folder, read_config
from jepa.training.config import PretrainConfig
from jepa.training.encoder_from import resolved
from jepa.training.run_state.run_folder import run_config
from jepa_data.stream.loader import make_loader
from jepa_probes.comparison.config import SECTIONS, Baseline, Budget, CellConfig, CompareConfig
from jepa_probes.comparison.result import cell_name

logger = logging.getLogger(__name__)
LATENTS_FOLDER = "latents"  # in the cell whose encoder they are of
FIRST_STEP = 1  # stands for the steps that a budget in minutes is yet to tell


@dataclass(frozen=True)
class Job:
    """A cell to be run, and the names of those whose folders it reads."""

    config: CellConfig
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its folder."""
        return cell_name(self.config.model, self.config.seed)


def expand(config: CompareConfig) -> list[Job]:
    """All cells, those that others read first.

    Raises:
        UserError: a section of a model does not fit, models have other data, or a run that is taken has no dynamics or
            other actions than the data.
    """
    cells = _Cells(config)
    order = sorted(config.entries, key=lambda name: config.entries[name].encoder_of is not None)
    jobs = [job for name in order for job in cells.of_model(name)]
    for baseline in config.baselines if cells.reference is not None else ():
        jobs += [cells.of_baseline(baseline, seed) for seed in config.seeds]
    return jobs


class _Cells:
    """Makes the cells of a comparison."""

    def __init__(self, config: CompareConfig) -> None:
        self.config = config
        self.entries = config.entries
        self.out = Path(config.out)
        self.reference = config.reference or next(iter(config.trained), None)
        if unknown := sorted(config.base.keys() - set(SECTIONS)):
            raise UserError(f"base: expected {', '.join(SECTIONS)}, found {', '.join(unknown)}")
        self.shards = config.base.get("data", {}).get("shards")
        if not isinstance(self.shards, str):
            raise UserError("base: expected data.shards, the folder of shards that all models share")

    def of_model(self, name: str) -> list[Job]:
        """Its cells, one for each seed; only one of a run that is taken and the same for all."""
        entry = self.entries[name]
        if entry.run is None:
            return [self._trained(name, seed) for seed in self.config.seeds]
        seeds = self.config.seeds if "{seed}" in entry.run else self.config.seeds[:1]
        jobs = []
        for seed in seeds:
            run = entry.run.replace("{seed}", str(seed))
            check_taken(name, Path(run), self.shards, shared=self._is_shared(name))
            jobs.append(Job(self._cell(name, seed, run=run)))
        return jobs

    def of_baseline(self, baseline: Baseline, seed: int) -> Job:
        """A baseline, made of the reference."""
        assert self.reference is not None
        source = cell_name(self.reference, seed)
        if baseline != "random_encoder":
            return Job(self._cell(baseline, seed, baseline=baseline, run=str(self.out / source)), (source,))
        entry = self.entries[self.reference]
        sections = self._sections(self.reference)
        if entry.encoder_of is not None:
            sections["encoder"] = self._sections(entry.encoder_of).get("encoder")
        predictor = sections.get("method", {}).get("predictor")
        encoder_from = sections.get("method", {}).get("encoder_from")
        sections["method"] = {"kind": "latent_dynamics"} | ({"predictor": predictor} if predictor else {})
        if sections.get("encoder") is None and encoder_from is not None:
            named = sections | {"method": sections["method"] | {"encoder_from": encoder_from}}
            encoder = resolved(self._training(baseline, seed, named))[0].encoder
            assert encoder is not None
            sections["encoder"] = encoder.model_dump(mode="json")
        training = self._training(baseline, seed, sections)
        budget = self._budget(self.reference)
        after = (source,) if self.config.tokenize and entry.encoder_of is not None else ()
        steps_of = str(self.out / source) if after else None
        cell = self._cell(baseline, seed, baseline=baseline, training=training, budget=budget, steps_of=steps_of)
        return Job(cell, after)

    def _trained(self, name: str, seed: int) -> Job:
        entry = self.entries[name]
        sections = self._sections(name)
        after: tuple[str, ...] = ()
        if entry.encoder_of is not None:
            source = self._source(entry.encoder_of, seed)
            if self.config.tokenize or self.entries[entry.encoder_of].run is None:
                after = (source,)
            sections.pop("encoder", None)
            method = {"encoder_from": str(self._folder(entry.encoder_of, seed))}
            if self.config.tokenize:
                method["latents_from"] = str(self.out / source / LATENTS_FOLDER)
            sections["method"] = sections.get("method", {}) | method
        training = self._training(name, seed, sections)
        return Job(self._cell(name, seed, training=training, budget=self._budget(name)), after)

    def _source(self, name: str, seed: int) -> str:
        """The cell of a model whose encoder others take; there is only one of a run that is the same for all seeds."""
        run = self.entries[name].run
        return cell_name(name, seed if run is None or "{seed}" in run else self.config.seeds[0])

    def _is_shared(self, name: str) -> bool:
        return any(entry.encoder_of == name for entry in self.entries.values())

    def _folder(self, name: str, seed: int) -> Path:
        run = self.entries[name].run
        return self.out / cell_name(name, seed) if run is None else Path(run.replace("{seed}", str(seed)))

    def _budget(self, name: str) -> Budget:
        return self.entries[name].budget or self.config.budget

    def _sections(self, name: str) -> dict[str, Any]:
        return merged(self.config.base, self.entries[name].sections)

    def _training(self, name: str, seed: int, sections: dict[str, Any]) -> PretrainConfig:
        run = self.out / cell_name(name, seed)
        reference = name if name in self.entries else self.reference
        assert reference is not None
        steps = {"steps": self._budget(reference).steps or FIRST_STEP}
        values = {key: value for key, value in sections.items() if value is not None}
        values |= {"run": str(run), "seed": seed, "trainer": values.get("trainer", {}) | steps}
        training = from_dict(values, PretrainConfig, source=f"models.{name}")
        if training.data.shards != self.shards:
            raise UserError(f"models.{name}: data.shards is {training.data.shards}; all models share {self.shards}")
        return training

    def _cell(self, name: str, seed: int, **settings: Any) -> CellConfig:
        c = self.config
        shared = {"measure": c.measure, "plan": c.plan, "dream": c.dream, "threads": c.threads}
        if self._is_shared(name):
            shared |= {"shared": True, "tokenize": c.tokenize}
        return CellConfig(model=name, seed=seed, shards=self.shards, **shared, **settings)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section; a section of another `kind` takes nothing over."""
    result = dict(base)
    for key, value in changes.items():
        before = base.get(key)
        same = isinstance(value, dict) and isinstance(before, dict) and value.get("kind") in (None, before.get("kind"))
        result[key] = merged(before, value) if same and before is not None else value
    return result


def check_taken(name: str, run: Path, shards: str, *, shared: bool = False) -> None:
    """Raises UserError if there is no run, or it cannot be compared on these shards.

    Args:
        shared: others take its encoder, so it may do without dynamics.
    """
    where = f"models.{name}: {run}"
    try:
        about, data = read_config(model_folder(run)), run_config(run).data
    except UserError as error:
        raise UserError(f"models.{name}: {error}") from None
    if about.dynamics is None and shared:
        return
    if about.dynamics is None:
        raise UserError(
            f"{where}: a model of {about.method}, which has no dynamics; expected one that predicts what actions do, "
            "such as lewm, pldm, dino_wm or latent_dynamics"
        )
    width = make_loader(data.model_copy(update={"shards": shards}), "train", seed=0, shuffle=False).action_size
    if width != about.spec.action_size:
        raise UserError(
            f"{where}: its actions are {about.spec.action_size} wide, those of {shards} {width}; take a run of the "
            "same world and rate"
        )

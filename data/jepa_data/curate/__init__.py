"""Curation: drops what is not worth training on, by stages that are listed in a config, and says why."""

from jepa_data.curate.config import CurateConfig
from jepa_data.curate.report import Curated
from jepa_data.curate.run import curate

__all__ = ["CurateConfig", "Curated", "curate"]

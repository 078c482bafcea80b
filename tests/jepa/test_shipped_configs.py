"""The parts of every shipped config, defaults included: a digest of each, so that no default changes unnoticed.

After a change that is meant: `python -m tests.jepa.test_shipped_configs` writes the digests anew.
"""

import hashlib
import json
from pathlib import Path

import yaml

from jepa.config import dump, load
from jepa.training.config import PretrainConfig
from jepa_probes.planning.config import PlanConfig

ROOT = Path(__file__).parents[2]
DIGESTS = Path(__file__).with_name("shipped_configs.json")
SECTIONS = {"pretrain": ("encoder", "method"), "plan": ("planner",)}


def digests() -> dict[str, str]:
    found = {}
    for verb, config in (("pretrain", PretrainConfig), ("plan", PlanConfig)):
        for path in sorted((ROOT / "configs" / verb).rglob("*.yaml")):
            values = yaml.safe_load(dump(load(path, config)))
            text = json.dumps({name: values[name] for name in SECTIONS[verb]}, sort_keys=True)
            found[str(path.relative_to(ROOT))] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def test_no_default_of_a_part_changes_unnoticed():
    expected, found = json.loads(DIGESTS.read_text()), digests()
    changed = [path for path in expected | found if expected.get(path) != found.get(path)]
    assert not changed, "was it meant? then: python -m tests.jepa.test_shipped_configs"


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=2) + "\n")

"""What a curation dropped, and why: a table for people, and OUT/curation.json for programs.

{"format": "openjepa-curation", "source": ..., "dry_run": false,
 "samples": {"train": {"before": 900, "after": 731}, ...},
 "stages": [{"stage": 0, "kind": "unreadable", "rule": ..., "seen": 1000, "dropped": 3, "config": null}, ...],
 "dropped": [{"key": ..., "split": ..., "stage": 0, "kind": "unreadable", "value": null, "threshold": null,
              "reason": "truncated: ...", "like": null}, ...],
 "notes": [...]}
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jepa.config.writing import write_text
from jepa_data.curate.config import Stage
from jepa_data.curate.table import Decision, Table
from jepa_data.denoise import Denoised
from jepa_data.shards.manifest import SPLITS
from jepa_data.writable import writing

FORMAT = "openjepa-curation"
CURATION = "curation.json"
LOST = "lost: its bytes are missing"


@dataclass(frozen=True)
class StageReport:
    """One stage, with what it saw. `stage` is None for `unreadable`, which comes before those of the config."""

    stage: Stage | None
    seen: tuple[int, ...]
    decision: Decision

    @property
    def kind(self) -> str:
        return "unreadable" if self.stage is None else self.stage.kind

    @property
    def dropped(self) -> frozenset[int]:
        """Rows."""
        return frozenset(drop.row for drop in self.decision.drops)


@dataclass(frozen=True)
class Curated:
    """What a curation did.

    Attributes:
        kept: keys of the samples that stay, in their order.
        written: the folder of shards; None after a dry run.
        examples: contact sheets.
        denoised: what became of the videos; None without a `denoise` stage.
        lost: keys of samples whose bytes are missing from the shards, by split; they count as unreadable.
        seconds: it took.
    """

    source: str
    table: Table
    stages: tuple[StageReport, ...]
    kept: tuple[int, ...]
    lost: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    written: Path | None = None
    examples: tuple[Path, ...] = ()
    denoised: Denoised | None = None
    seconds: float = 0.0

    @property
    def kept_keys(self) -> tuple[str, ...]:
        """In the order of the shards."""
        return tuple(self.table.keys[row] for row in self.kept)

    @property
    def dropped(self) -> dict[str, str]:
        """Key and reason of each sample that was dropped, lost ones included."""
        reasons = {key: LOST for keys in self.lost.values() for key in keys}
        return reasons | {self.table.keys[d.row]: d.reason for stage in self.stages for d in stage.decision.drops}

    @property
    def splits(self) -> dict[str, tuple[int, int]]:
        """Samples of each split, before and after."""
        after = Counter(self.table.splits[row] for row in self.kept)
        before = Counter(self.table.splits)
        before.update({split: len(keys) for split, keys in self.lost.items()})
        return {split: (before[split], after[split]) for split in SPLITS if before[split]}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Cells of the table for people, the first row a heading."""
        rows = [("stage", "seen", "dropped", "what goes")]
        for stage in self.stages:
            seen, dropped = self._counts(stage)
            rows.append((stage.kind, str(seen), str(dropped), stage.decision.rule))
        return rows

    def lines(self) -> list[str]:
        """The lines below the table."""
        parts = ", ".join(f"{split} {after} of {before}" for split, (before, after) in self.splits.items())
        lines = [f"kept: {parts}    ({self.seconds:.1f} s)"]
        for stage in self.stages:
            for drop in stage.decision.drops[:1]:
                lines.append(f"  {stage.kind}: for example {self.table.keys[drop.row]}: {drop.reason}")
        if self.denoised is not None:
            lines += self.denoised.lines()
        lines += [f"note: {note}" for note in self.notes]
        return lines + [f"examples: {path}" for path in self.examples]

    def record(self) -> dict[str, Any]:
        """The contents of curation.json. It depends on the shards and the config alone."""
        stages = []
        for number, stage in enumerate(self.stages):
            seen, dropped = self._counts(stage)
            about = {"stage": number, "kind": stage.kind, "rule": stage.decision.rule, "seen": seen, "dropped": dropped}
            stages.append(about | {"config": stage.stage and stage.stage.model_dump(mode="json")})
        about = {} if self.denoised is None else {"denoised": asdict(self.denoised)}
        return {
            "format": FORMAT,
            "source": self.source,
            "dry_run": self.written is None,
            "samples": {split: {"before": before, "after": after} for split, (before, after) in self.splits.items()},
            "stages": stages,
            "dropped": list(self._dropped()),
            "notes": list(self.notes),
            **about,
        }

    def write(self, out: Path) -> None:
        """Raises DataError if it cannot be written."""
        with writing(out / CURATION):
            write_text(out / CURATION, json.dumps(self.record(), indent=1) + "\n")

    def _counts(self, stage: StageReport) -> tuple[int, int]:
        """Samples that a stage saw, and that it dropped. Lost ones count as unreadable."""
        lost = sum(map(len, self.lost.values())) * (stage.stage is None)
        return len(stage.seen) + lost, len(stage.decision.drops) + lost

    def _dropped(self) -> Iterator[dict[str, Any]]:
        for split, lost in self.lost.items():
            for key in lost:
                where = {"key": key, "split": split, "stage": 0, "kind": "unreadable"}
                yield where | {"value": None, "threshold": None, "reason": LOST, "like": None}
        keys = self.table.keys
        for number, stage in enumerate(self.stages):
            for drop in stage.decision.drops:
                where = {"key": keys[drop.row], "split": self.table.splits[drop.row]}
                where |= {"stage": number, "kind": stage.kind}
                like = None if drop.like is None else keys[drop.like]
                yield where | {"value": drop.value, "threshold": drop.threshold, "reason": drop.reason, "like": like}


def summary(stages: Sequence[StageReport]) -> str:
    """One line: how many each stage dropped."""
    return ", ".join(f"{stage.kind} {len(stage.decision.drops)}" for stage in stages if stage.decision.drops)

"""The report of `jepa compress` as a table: a column for the original latents and for each reduction."""

from jepa_probes.compression.result import ORIGINAL, CompressionResult
from jepa_probes.probing.suite import FLOOR
from jepa_probes.reporting.results import aligned, number, percent


def table(result: CompressionResult) -> list[str]:
    """Sizes first, then the score of each state and label, with the difference from the original in brackets."""
    latents = result.latents
    rows = [
        ["", *latents, FLOOR],
        ["tokens x width", *(f"{each.tokens} x {each.width}" for each in latents.values()), ""],
        ["numbers a step", *(f"{each.numbers:,}" for each in latents.values()), ""],
        ["bytes a frame, bf16", *(f"{each.bytes_per_frame:,}" for each in latents.values()), ""],
        ["variance kept", *(percent(each.variance_kept) for each in latents.values()), ""],
        ["seconds to fit", "", *(f"{each.fit_seconds:.2f}" for name, each in latents.items() if name != ORIGINAL), ""],
    ]
    for row, scores in result.scores.items():
        if scores[ORIGINAL] is not None and not row.endswith(".balanced"):
            cells = [_cell(result, row, column) for column in latents]
            rows.append([_label(row), *cells, number(scores.get(FLOOR), 2)])
    return aligned(rows, str.rjust)


def _cell(result: CompressionResult, row: str, column: str) -> str:
    score = number(result.scores[row].get(column), 2)
    loss = result.loss(row, column)
    if column == ORIGINAL or loss is None:
        return score
    return f"{score} ({-loss:+.2f})".replace("-", "−")


def _label(row: str) -> str:
    """`R² agent.x` of state.agent.x; `accuracy room` of class.room.linear.accuracy."""
    if row == "state_r2":
        return "R² state"
    what, _, name = row.partition(".")
    return f"R² {name}" if what == "state" else f"accuracy {name.removesuffix('.linear.accuracy')}"

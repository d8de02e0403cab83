"""What a training command prints: lines for people, or one JSON object for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command_data import CommandData
from model.progress import OnProgress, RunStage, unheard
from model.report import epoch_line, evaluation_report
from model.tokens import unknown_warnings

if TYPE_CHECKING:
    from model.metrics import Evaluation
    from model.train_result import Decision, EpochReport, TrainResult


def write_data(data: CommandData) -> None:
    rows = ", ".join(f"{rows} {split}" for split, rows in data.rows.items())
    lines = [f"rows: {rows}", *(f"warning: {warning}" for warning in data.warnings)]
    sys.stdout.write("\n".join(lines) + "\n")


def progress_printer() -> OnProgress:
    """Tells of tokenizing, which a large file waits for before its first epoch, on a terminal."""
    if not sys.stderr.isatty():
        return unheard

    def on_progress(stage: RunStage, done: int, total: int) -> None:
        if stage == "tokenizing":
            # The line goes when all is done.
            line = "" if done == total else f"tokenizing: {done:,} of {total:,} texts"
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    return on_progress


def epoch_printer(*, to_json: bool) -> Callable[[EpochReport], Decision]:
    """With JSON the progress goes to standard error, so that the output stays one object."""
    stream = sys.stderr if to_json else sys.stdout

    def on_epoch(report: EpochReport) -> Decision:
        stream.write(epoch_line(report.epoch, report.metrics) + "\n")
        stream.flush()
        return "continue"

    return on_epoch


def write_text(result: TrainResult, tested: Evaluation | None, out: Path | None) -> None:
    assert result.best is not None
    assert result.best_epoch is not None
    lines = [
        "",
        f"Validation, best epoch {result.best_epoch + 1} ({result.train_seconds:.1f} s, "
        f"{result.steps} steps, {result.device_name}, {result.precision})",
        evaluation_report(result.best),
        *(f"warning: {warning}" for warning in unknown_warnings(result.unknown_share)),
    ]
    if tested is not None:
        lines += ["", "Test", evaluation_report(tested)]
    if out is not None:
        lines += ["", f"The model is in {out}"]
    sys.stdout.write("\n".join(lines) + "\n")


def write_json(
    data: CommandData, result: TrainResult, tested: Evaluation | None, out: Path | None
) -> None:
    content = {
        "rows": data.rows,
        "warnings": [*data.warnings, *unknown_warnings(result.unknown_share)],
        "best_epoch": result.best_epoch,
        "value": result.value,
        "labels": result.labels,
        "validation": None if result.best is None else _as_json(result.best),
        "test": None if tested is None else _as_json(tested),
        "epochs": [dataclasses.asdict(report) for report in result.epochs],
        "truncated_share": result.truncated_share,
        "lost_token_share": result.lost_token_share,
        "unknown_share": result.unknown_share,
        "steps": result.steps,
        "stopped_early": result.stopped_early,
        "train_seconds": result.train_seconds,
        "device": result.device_name,
        "precision": result.precision,
        "resumed_from_epoch": result.resumed_from_epoch,
        "problems": result.problems,
        "folder": None if out is None else str(out),
    }
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _as_json(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metrics": evaluation.metrics,
        "per_class": [dataclasses.asdict(entry) for entry in evaluation.per_class],
        "confusion": evaluation.confusion.tolist(),
        "matrices": [
            {
                "head": matrix.head,
                "kind": matrix.kind,
                "unit": matrix.unit,
                "labels": matrix.labels,
                "matrix": matrix.counts.tolist(),
            }
            for matrix in evaluation.matrices
        ],
    }

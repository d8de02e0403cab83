"""The command line of `python -m model`: files in, a trained model and its figures out.

Torch is imported only once the arguments are known to be good, so that `--help` and mistakes
answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.checkpoint import read_checkpoint, scratch_size
from model.config import (
    LOSS_WEIGHT,
    LOSS_WEIGHT_RULE,
    RULES,
    SCRATCH_LEARNING_RATE,
    SCRATCH_PREFIX,
    SPLITS,
    Precision,
    Rule,
    Scalar,
    Split,
    TrainConfig,
    check_setting,
    default_settings,
    settings_of,
    train_config,
)
from model.data import fingerprint, normalise
from model.data_arguments import add_data_arguments, read_data_options
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.division import divide_train, wanted_fractions
from model.errors import InputError
from model.exit_code import exit_code
from model.interruption import stop_on_signals
from model.measures import DEFAULT_METRIC, metrics_of
from model.normalised_file import Examples, read_examples
from model.progress import OnProgress, RunStage, unheard
from model.report import epoch_line, evaluation_report
from model.splits import split_positions
from model.tokens import unknown_warnings

if TYPE_CHECKING:
    from model.metrics import Evaluation
    from model.train_result import Decision, EpochReport, TrainResult


DESCRIPTION = """\
Train one BERT classifier and report how good it is. The weights kept are those of the best
validation epoch. Files are CSV, TSV, JSONL or Parquet with the columns text (or text_a and
text_b) and label."""

EXAMPLE = """\
example: python -m model --train tickets.csv --model scratch:tiny --epochs 5 --out tickets-model

Ask a saved model: python -m model predict --help; as ONNX: python -m model onnx --help"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 when the training failed, 2 when the input cannot be used."""
    return exit_code(lambda: _run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_arguments(parser.add_argument_group("data"))
    _add_run_arguments(parser.add_argument_group("run"))
    settings = parser.add_argument_group("training settings")
    settings.add_argument(
        "--loss-weight",
        action="append",
        default=[],
        metavar="HEAD=FLOAT",
        help="of several label columns: how much a head counts in the loss; default 1",
    )
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, rule in RULES.items():
        text = _describe(name, rule, defaults[name])
        settings.add_argument(_flag(name), metavar=rule.kind.upper(), help=text)
    return parser


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    default = TrainConfig()
    group.add_argument(
        "--model",
        default=default.model,
        metavar="MODEL",
        help="scratch:tiny|mini|small|base or a Hugging Face folder (default %(default)s)",
    )
    group.add_argument(
        "--metric",
        metavar="METRIC",
        help="names the best epoch (default: "
        + ", ".join(f"{metric} of {task}" for task, metric in DEFAULT_METRIC.items())
        + "); of several label columns also HEAD.METRIC",
    )
    group.add_argument("--seed", type=int, default=default.seed, help="default %(default)s")
    group.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    group.add_argument("--precision", default="auto", choices=get_args(Precision))
    group.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    group.add_argument("--out", type=Path, metavar="FOLDER", help="save the model here")
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="save the run's state here every minute and at Ctrl-C or SIGTERM, go on from it when "
        "it exists, and remove it when the run is complete",
    )
    group.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _describe(name: str, rule: Rule, default: Any) -> str:
    unset = "the model's own" if name in ("dropout", "pooling") else "none"
    shown = unset if default is None else str(default)
    if name == "learning_rate":
        shown += f", {SCRATCH_LEARNING_RATE} for scratch models"
    choices = f"{', '.join(rule.choices)}; " if rule.choices else ""
    return f"{choices}default {shown}"


def _run(options: argparse.Namespace) -> None:
    settings = _settings(options)
    _check_model(options.model)
    data = _read(options)
    test = data.splits.get("test")
    config = _config(options, data.summary, settings)

    import torch

    from model.devices import choose_device
    from model.evaluation import evaluate
    from model.export import check_folder_free
    from model.training import TrainData, train

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if options.out is not None:
        check_folder_free(options.out)
    if not options.json:
        _write_data(data)
    training = functools.partial(
        train,
        config,
        TrainData(**data.fields),
        device=device,
        on_epoch=_epoch_printer(options),
        on_progress=_progress_printer(),
    )
    result = training() if options.checkpoint is None else _resumable(training, options.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch) / "model"
        if options.out is not None or test is not None:
            result.save(folder)
        tested = None
        if test is not None:
            tested = evaluate(folder, test, result.labels, config, device=device)
    if options.json:
        _write_json(data, result, tested, options.out)
    else:
        _write_text(result, tested, options.out)
    if options.checkpoint is not None:
        options.checkpoint.unlink(missing_ok=True)


def _resumable(training: Callable[..., TrainResult], path: Path) -> TrainResult:
    """Raises `KeyboardInterrupt` when a signal ended the run; its state is in ``path`` then."""
    from model.checkpoints import CheckpointPlan

    path.parent.mkdir(parents=True, exist_ok=True)
    # Somebody else's state would be lost when ours replaces it.
    plan = CheckpointPlan(path, resume=path, must_fit=True)
    with stop_on_signals() as should_stop:
        result = training(should_stop=should_stop, checkpoint=plan)
    if result.state == "stopped":
        saved = f"; the same command goes on from {path}" if path.exists() else ""
        raise KeyboardInterrupt(f"interrupted after {result.steps} steps{saved}")
    return result


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in RULES if getattr(options, name) is not None}
    settings: dict[str, Any] = {
        name: check_setting(name, _parse(RULES[name], text), (_flag(name),))
        for name, text in given.items()
    }
    for pair in options.loss_weight:
        head, _, text = pair.partition("=")
        name = LOSS_WEIGHT + head
        settings[name] = check_setting(name, _parse(LOSS_WEIGHT_RULE, text), ("--loss-weight",))
    _check_count("--seed", options.seed, least=0)
    _check_count("--threads", options.threads, least=1)
    for name, default in default_settings(options.model, settings).items():
        settings.setdefault(name, default)
    return settings


def _config(
    options: argparse.Namespace, summary: DataSummary, settings: dict[str, Any]
) -> TrainConfig:
    task, heads = summary.task, summary.heads
    metric = options.metric or DEFAULT_METRIC[task]
    known = settings_of(task, heads)
    for name in settings:
        if name not in known:
            raise InputError("unused_setting", f"{name} is no setting of {task}.", (_flag(name),))
    return train_config(
        settings,
        model=options.model,
        task=task,
        heads=heads,
        seed=options.seed,
        metric=metric,
        # `train` refuses others by name
        direction=metrics_of(task, heads).get(metric, "maximize"),
        precision=options.precision,
    )


def _check_count(flag: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise InputError("invalid_value", f"It must be at least {least}; got {value}.", (flag,))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parse(rule: Rule, text: str) -> Scalar | None:
    """The number in ``text``; what is none is left for `check_setting` to refuse."""
    if rule.optional and text == "none":
        return None
    if rule.kind == "choice":
        return text
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _check_model(model: str) -> None:
    if model.startswith(SCRATCH_PREFIX):
        scratch_size(model)
    else:
        read_checkpoint(Path(model))


@dataclass(frozen=True, slots=True)
class _Data:
    """What was read: the splits, and what the reader has to say of them."""

    splits: dict[Split, Examples]
    summary: DataSummary
    key: str
    warnings: list[str]

    @property
    def rows(self) -> dict[Split, int]:
        return {split: len(self.splits[split].rows) for split in SPLITS if split in self.splits}

    @property
    def fields(self) -> dict[str, Any]:
        """Those of `TrainData`."""
        return {
            "train": self.splits["train"],
            "validation": self.splits["validation"],
            "labels": self.summary.labels,
            "dataset_key": self.key,
        }


def _read(options: argparse.Namespace) -> _Data:
    given = {split: getattr(options, split) for split in SPLITS}
    sources = {split: path for split, path in given.items() if path is not None}
    how = read_data_options(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        summary = normalise(sources, how, folder)
        splits = {split: read_examples(folder / f"{split}.parquet") for split in sources}
        wanted = wanted_fractions(how, sources)
        if "validation" not in splits or wanted.test_fraction > 0:
            path = folder / "train.parquet"
            repeated_texts = summary.repeated_texts > 0
            rows = divide_train(
                path, summary.task, wanted, seed=options.seed, repeated_texts=repeated_texts
            )
            for split, positions in zip(SPLITS, split_positions(rows), strict=True):
                if split == "train" or len(positions):
                    splits[split] = read_examples(path, positions)
    facts = dataclasses.asdict(summary)
    warnings = data_warnings(facts, task=summary.task, keeps=how.duplicates == "keep")
    return _Data(splits, summary, fingerprint(summary, how), warnings)


def _write_data(data: _Data) -> None:
    rows = ", ".join(f"{rows} {split}" for split, rows in data.rows.items())
    lines = [f"rows: {rows}", *(f"warning: {warning}" for warning in data.warnings)]
    sys.stdout.write("\n".join(lines) + "\n")


def _progress_printer() -> OnProgress:
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


def _epoch_printer(options: argparse.Namespace) -> Callable[[EpochReport], Decision]:
    """With ``--json`` the progress goes to standard error, so that the output stays one object."""
    stream = sys.stderr if options.json else sys.stdout

    def on_epoch(report: EpochReport) -> Decision:
        stream.write(epoch_line(report.epoch, report.metrics) + "\n")
        stream.flush()
        return "continue"

    return on_epoch


def _write_text(result: TrainResult, tested: Evaluation | None, out: Path | None) -> None:
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


def _write_json(
    data: _Data, result: TrainResult, tested: Evaluation | None, out: Path | None
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

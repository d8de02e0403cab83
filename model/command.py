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
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.checkpoint import read_checkpoint, scratch_size
from model.config import (
    METRIC_DIRECTIONS,
    RULES,
    SCRATCH_LEARNING_RATE,
    SCRATCH_PREFIX,
    DataOptions,
    Precision,
    Rule,
    Scalar,
    Split,
    TrainConfig,
    check_setting,
)
from model.data import Examples, fingerprint, normalise, read_examples
from model.disk import full_disk_named
from model.errors import InputError, TrainingError
from model.interruption import stop_on_signals
from model.report import epoch_line, evaluation_report
from model.splits import split_rows

if TYPE_CHECKING:
    from model.metrics import Evaluation
    from model.train_result import Decision, EpochReport, TrainResult


DESCRIPTION = """\
Train one BERT classifier and report how good it is. The weights kept are those of the best
validation epoch. Files are CSV, TSV, JSONL or Parquet with the columns text (or text_a and
text_b) and label."""

EXAMPLE = """\
example: python -m model --train tickets.csv --model scratch:tiny --epochs 5 --out tickets-model"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 when the training failed, 2 when the input cannot be used."""
    options = _parser().parse_args(arguments)
    try:
        with full_disk_named():
            _run(options)
    except InputError as error:
        place = f" (at {', '.join(map(str, error.where))})" if error.where else ""
        return _fail(f"{error.code}: {error.detail}{place}", 2)
    except TrainingError as error:
        return _fail(f"{error.code}: {error.detail}", 1)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_arguments(parser.add_argument_group("data"))
    _add_run_arguments(parser.add_argument_group("run"))
    settings = parser.add_argument_group("training settings")
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, rule in RULES.items():
        text = _describe(name, rule, defaults[name])
        settings.add_argument(_flag(name), metavar=rule.kind.upper(), help=text)
    return parser


def _add_data_arguments(group: argparse._ArgumentGroup) -> None:
    defaults = DataOptions()
    group.add_argument("--train", type=Path, required=True, metavar="FILE")
    group.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help=f"default: a stratified {defaults.validation_fraction:g} of the train file",
    )
    group.add_argument("--test", type=Path, metavar="FILE", help="seen once, by the best epoch")
    group.add_argument("--text", metavar="COLUMN", help="default: text, else text_a")
    group.add_argument("--text-b", metavar="COLUMN", help="second text of a pair")
    group.add_argument("--label", metavar="COLUMN", help="default: label")


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
        default=default.metric,
        choices=METRIC_DIRECTIONS,
        help="names the best epoch (default %(default)s)",
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
    shown = "the model's own" if default is None else str(default)
    if name == "learning_rate":
        shown += f", {SCRATCH_LEARNING_RATE} for scratch models"
    choices = f"{', '.join(rule.choices)}; " if rule.choices else ""
    return f"{choices}default {shown}"


def _run(options: argparse.Namespace) -> None:
    config = _config(options)
    _check_model(config)
    data, test = _read(options)

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
    training = functools.partial(
        train, config, TrainData(**data), device=device, on_epoch=_epoch_printer(options)
    )
    result = training() if options.checkpoint is None else _resumable(training, options.checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch) / "model"
        if options.out is not None or test is not None:
            result.save(folder)
        tested = None
        if test is not None:
            tested = evaluate(
                folder,
                test,
                result.labels,
                max_length=config.max_length,
                truncation=config.truncation,
                device=device,
                precision=config.precision,
            )
    (_write_json if options.json else _write_text)(result, tested, options.out)
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


def _config(options: argparse.Namespace) -> TrainConfig:
    given = {name: getattr(options, name) for name in RULES if getattr(options, name) is not None}
    settings: dict[str, Any] = {
        name: check_setting(name, _parse(RULES[name], text), (_flag(name),))
        for name, text in given.items()
    }
    _check_count("--seed", options.seed, least=0)
    _check_count("--threads", options.threads, least=1)
    if options.model.startswith(SCRATCH_PREFIX):
        settings.setdefault("learning_rate", SCRATCH_LEARNING_RATE)
    return TrainConfig(
        model=options.model,
        seed=options.seed,
        metric=options.metric,
        direction=METRIC_DIRECTIONS[options.metric],
        precision=options.precision,
        **settings,
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


def _check_model(config: TrainConfig) -> None:
    if config.model.startswith(SCRATCH_PREFIX):
        scratch_size(config.model)
    else:
        read_checkpoint(Path(config.model))


def _read(options: argparse.Namespace) -> tuple[dict[str, Any], Examples | None]:
    """The fields of `TrainData`, and the test split where one is given."""
    sources: dict[Split, Path] = {"train": options.train}
    if options.validation is not None:
        sources["validation"] = options.validation
    if options.test is not None:
        sources["test"] = options.test
    columns = DataOptions(text=options.text, text_b=options.text_b, label=options.label)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        summary = normalise(sources, columns, folder)
        splits = {split: read_examples(folder / f"{split}.parquet") for split in sources}
        if "validation" not in splits:
            rows = split_rows(
                splits["train"].labels,
                validation_fraction=columns.validation_fraction,
                test_fraction=0.0,
                seed=options.seed,
            )
            path = folder / "train.parquet"
            splits["train"] = read_examples(path, rows.train)
            splits["validation"] = read_examples(path, rows.validation)
    fields = {
        "train": splits["train"],
        "validation": splits["validation"],
        "labels": summary.labels,
        "dataset_key": fingerprint(summary, columns),
    }
    return fields, splits.get("test")


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
    ]
    if tested is not None:
        lines += ["", "Test", evaluation_report(tested)]
    if out is not None:
        lines += ["", f"The model is in {out}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _write_json(result: TrainResult, tested: Evaluation | None, out: Path | None) -> None:
    content = {
        "best_epoch": result.best_epoch,
        "value": result.value,
        "labels": result.labels,
        "validation": None if result.best is None else _as_json(result.best),
        "test": None if tested is None else _as_json(tested),
        "epochs": [dataclasses.asdict(report) for report in result.epochs],
        "truncated_share": result.truncated_share,
        "steps": result.steps,
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
    }

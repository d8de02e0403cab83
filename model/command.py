"""The command line of `python -m model`: files in, a trained model and its figures out.

Torch is imported only once the arguments are known to be good, so that `--help` and mistakes
answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from model.checkpoint import read_checkpoint, scratch_size
from model.command_data import read_data
from model.command_output import (
    epoch_printer,
    progress_printer,
    write_data,
    write_json,
    write_text,
)
from model.config import (
    LOSS_WEIGHT,
    LOSS_WEIGHT_RULE,
    RULES,
    SCRATCH_LEARNING_RATE,
    SCRATCH_PREFIX,
    Precision,
    Rule,
    Scalar,
    TrainConfig,
    check_setting,
    default_settings,
    settings_of,
    train_config,
)
from model.data_arguments import add_data_arguments
from model.dataset_summary import DataSummary
from model.errors import InputError
from model.exit_code import exit_code
from model.interruption import stop_on_signals
from model.measures import DEFAULT_METRIC, metrics_of
from model.onnx_packages import check_onnx_installed

if TYPE_CHECKING:
    from model.train_result import TrainResult


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
        "--onnx",
        action="store_true",
        help="have onnx/model.onnx in that folder too; needs pip install 'bertune[onnx]'",
    )
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
    if options.onnx:
        _check_onnx(options.out)
    data = read_data(options)
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
        write_data(data)
    training = functools.partial(
        train,
        config,
        TrainData(**data.fields),
        device=device,
        on_epoch=epoch_printer(to_json=options.json),
        on_progress=progress_printer(),
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
        write_json(data, result, tested, options.out)
    else:
        write_text(result, tested, options.out)
    if options.checkpoint is not None:
        options.checkpoint.unlink(missing_ok=True)
    if options.onnx:  # last, so that whatever comes of it, model and figures are there
        _write_onnx(options.out, to_json=options.json)


def _check_onnx(out: Path | None) -> None:
    if out is None:
        detail = "--onnx needs a folder to write to: name one with --out."
        raise InputError("invalid_value", detail, ("--onnx",))
    check_onnx_installed()


def _write_onnx(folder: Path, *, to_json: bool) -> None:
    from model.onnx_export import export_onnx

    path = export_onnx(folder)
    if not to_json:
        sys.stdout.write(f"As ONNX it is in {path}\n")


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

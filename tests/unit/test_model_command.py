"""`python -m model`: what it prints, what it leaves, and how it refuses."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.command import main
from model.command_output import progress_printer
from model.config import RULES
from model.interruption import stop_on_signals
from model.normalised_file import Examples
from model.report import epoch_line, evaluation_report, table
from model.tasks.single_label import ClassPredictions, SingleLabelTask

QUICK = ["--epochs", "1", "--max-length", "16", "--threads", "1", "--precision", "fp32"]


@pytest.fixture
def files(tmp_path: Path, examples: Callable[[int, int], Examples]) -> dict[str, str]:
    paths = {}
    for seed, name in enumerate(("train", "validation", "test")):
        paths[name] = str(tmp_path / f"{name}.csv")
        split = examples(60, seed)
        with Path(paths[name]).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(zip(split.text_a, split.labels, strict=True))
    return paths


def test_help_names_every_training_setting_and_imports_no_torch() -> None:
    code = (
        "import sys; from model.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    for name in RULES:
        assert f"--{name.replace('_', '-')} " in done.stdout


def test_the_module_runs_and_refuses_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model", "--train", str(tmp_path / "none.csv")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "none.csv" in done.stderr


def test_a_run_prints_its_epochs_figures_and_matrix_and_saves_the_model(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    arguments = ["--train", files["train"], "--test", files["test"], "--out", str(out), *QUICK]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[0] == "rows: 51 train, 9 validation, 60 test"
    assert "\nepoch 1: accuracy " in printed.out
    assert "true \\ predicted" in printed.out
    assert f"The model is in {out}" in printed.out
    assert (out / "model.safetensors").is_file()


def test_json_is_one_object_with_both_splits(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    splits = [text for name, path in files.items() for text in (f"--{name}", path)]
    assert main([*splits, "--json", *QUICK]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert printed.err.startswith("epoch 1: ")
    assert content["labels"] == ["login", "payment", "shipping"]
    for split in ("validation", "test"):
        assert sum(map(sum, content[split]["confusion"])) == 60
    assert content["value"] == content["validation"]["metrics"]["macro_f1"]
    assert content["folder"] is None


def test_validation_rows_come_from_the_train_file_when_none_are_given(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--train", files["train"], "--json", *QUICK]) == 0
    content = json.loads(capsys.readouterr().out)
    assert sum(map(sum, content["validation"]["confusion"])) == 9  # 0.15 of 60
    assert content["test"] is None


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--learning-rate", "7"], "invalid_value: learning_rate must be above 0 and at most 1"),
        (["--batch-size", "many"], "batch_size must be a finite number; got 'many'"),
        (["--batch-size", "2.5"], "batch_size must be a whole number"),
        (["--truncation", "middle"], "truncation must be one of head, tail, head_tail"),
        (["--model", "scratch:vast"], "unknown_model"),
        (["--model", "/no/such/folder"], "unknown_model"),
        (["--label", "topic"], "missing_column"),
        (["--seed", "-1"], "must be at least 0; got -1. (at --seed)"),
        (["--threads", "0"], "must be at least 1; got 0. (at --threads)"),
    ],
)
def test_bad_input_is_named_with_its_place_and_exit_code_two(
    files: dict[str, str],
    arguments: list[str],
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--train", files["train"], *arguments]) == 2
    error = capsys.readouterr().err
    assert shown in error
    assert "(at " in error


def test_an_output_folder_in_use_is_refused_before_the_training(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--train", files["train"], "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "folder_exists" in printed.err
    assert printed.out == ""


def test_dropout_none_keeps_the_models_own(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--train", files["train"], "--dropout", "none", "--json", *QUICK]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2  # 51 rows in batches of 32


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_ended_goes_on_from_its_checkpoint(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    state = tmp_path / "states" / "run.safetensors"
    arguments = ["--train", files["train"], *QUICK, "--epochs", "3", "--json"]
    arguments += ["--checkpoint", str(state)]

    def interrupted_line(epoch: int, metrics: dict[str, float]) -> str:
        signal.raise_signal(number)
        return epoch_line(epoch, metrics)

    with monkeypatch.context() as interrupted:
        interrupted.setattr("model.command_output.epoch_line", interrupted_line)
        assert main(arguments) == 130
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("epoch 1: ")
    assert told[1:] == [f"error: interrupted after 2 steps; the same command goes on from {state}"]

    assert main(arguments) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert content["resumed_from_epoch"] == 1
    assert content["problems"] == []
    assert [line[:8] for line in printed.err.splitlines()] == ["epoch 1:", "epoch 2:", "epoch 3:"]
    assert content["steps"] == 6
    assert list(state.parent.iterdir()) == []


def test_the_checkpoint_of_another_run_is_refused_and_left_alone(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = tmp_path / "run.safetensors"
    arguments = ["--train", files["train"], *QUICK, "--epochs", "3", "--checkpoint", str(state)]

    def interrupted_line(epoch: int, metrics: dict[str, float]) -> str:
        signal.raise_signal(signal.SIGINT)
        return epoch_line(epoch, metrics)

    with monkeypatch.context() as interrupted:
        interrupted.setattr("model.command_output.epoch_line", interrupted_line)
        assert main(arguments) == 130
    saved = state.read_bytes()
    assert main([*arguments, "--seed", "7"]) == 2
    error = capsys.readouterr().err
    assert "other_checkpoint" in error
    assert "a run with other seed" in error
    assert state.read_bytes() == saved


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in the foreground: what a shell starts in the background inherits it ignored."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.mark.usefixtures("interruptible")
def test_signals_work_as_before_when_a_run_is_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals() as should_stop:
        assert should_stop() == "no"
        signal.raise_signal(signal.SIGINT)
        assert should_stop() == "after_saving"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_table_aligns_its_columns_and_cuts_long_labels() -> None:
    shown = table(("label", "rows"), [("x" * 50, "7"), ("short", "1234")])
    lines = shown.split("\n")
    assert lines[1] == "x" * 39 + "…" + "     7"
    assert lines[2] == "short".ljust(40) + "  1234"


def test_many_classes_are_folded_to_the_frequent_confusions() -> None:
    import numpy as np

    labels = tuple(f"class{index:02}" for index in range(30))
    true = np.arange(30)
    predicted = true.copy()
    predicted[:2] = [1, 0]
    probability = np.ones(30, dtype=np.float32)
    predictions = ClassPredictions(true + 1, true, predicted, probability)
    shown = evaluation_report(SingleLabelTask.score(labels, predictions, loss=0.1))
    assert "true \\ predicted" not in shown
    assert shown.splitlines()[-2:] == [
        "class00    class01     1",
        "class01    class00     1",
    ]


def test_tokenizing_is_told_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    progress_printer()("tokenizing", 4096, 5000)
    assert screen.getvalue() == ""
    monkeypatch.setattr(screen, "isatty", lambda: True)
    on_progress = progress_printer()
    on_progress("tokenizing", 4096, 5000)
    assert screen.getvalue().endswith("tokenizing: 4,096 of 5,000 texts")
    on_progress("tokenizing", 5000, 5000)
    on_progress("training", 1, 9)
    assert screen.getvalue().endswith("\r\x1b[K")

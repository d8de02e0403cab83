"""A saved model as ONNX: what a runtime without torch says of texts, and clear refusals."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_models import CUES
from tokenizers import Tokenizer

from model import onnx_export
from model.config import TrainConfig
from model.errors import InputError, TrainingError
from model.normalised_file import Examples
from model.onnx_command import main
from model.training import TrainData, TrainResult, train

CPU = torch.device("cpu")
LABELS = tuple(CUES)
TAGS = ("O", *(f"{place}-{label}" for label in LABELS for place in "BI"))
CONFIG = TrainConfig(
    model="scratch:tiny",
    learning_rate=2e-3,
    batch_size=16,
    max_length=12,
    epochs=2,
    precision="fp32",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tagged(examples: Examples) -> Examples:
    """The cues of the texts are entities of their label."""
    cues = {cue: f"B-{label}" for label, cue in CUES.items()}
    tags = [" ".join(cues.get(word, "O") for word in text.split(" ")) for text in examples.text_a]
    return replace(examples, labels=tags)


def trained(config: TrainConfig, splits: list[Examples], labels: tuple[str, ...]) -> TrainResult:
    data = TrainData(train=splits[0], validation=splits[1], labels=labels, dataset_key="cafe03")
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


@pytest.fixture
def saved(tmp_path: Path, examples: Callable[[int, int], Examples]) -> Path:
    result = trained(CONFIG, [examples(90, 1), examples(24, 2)], LABELS)
    result.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_runtime_without_torch_repeats_the_recorded_predictions(
    tmp_path: Path, examples: Callable[[int, int], Examples], capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way of a user: the command, the folder's tokenizer, padded batches."""
    validation = examples(24, 2)
    result = trained(replace(CONFIG, pooling="mean"), [examples(90, 1), validation], LABELS)
    result.save(tmp_path / "saved")
    assert main([str(tmp_path / "saved")]) == 0
    path = tmp_path / "saved/onnx/model.onnx"
    assert capsys.readouterr().out == f"{path}\n"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json"))
    tokenizer.enable_truncation(CONFIG.max_length)
    tokenizer.enable_padding()
    read = tokenizer.encode_batch(validation.text_a)
    inputs = {
        "input_ids": np.array([row.ids for row in read]),
        "attention_mask": np.array([row.attention_mask for row in read]),
        "token_type_ids": np.array([row.type_ids for row in read]),
    }
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], inputs)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert shares.argmax(axis=1).tolist() == result.predictions.predicted.tolist()
    assert shares.max(axis=1) == pytest.approx(result.predictions.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("model_type", "task"), [("distilbert", "token"), ("modernbert", "single_label")]
)
def test_other_architectures_and_tasks_are_translated(
    tmp_path: Path,
    examples: Callable[[int, int], Examples],
    model_folder: Callable[[str], Path],
    model_type: str,
    task: Any,
) -> None:
    """The export itself compares both and refuses a file that differs."""
    splits, labels = [examples(60, 1), examples(24, 2)], LABELS
    metric = "macro_f1"
    if task == "token":
        splits, labels, metric = [tagged(split) for split in splits], TAGS, "entity_f1"
    config = replace(CONFIG, model=str(model_folder(model_type)), task=task, metric=metric)
    trained(config, splits, labels).save(tmp_path / "saved")
    session = onnxruntime.InferenceSession(onnx_export.export_onnx(tmp_path / "saved"))
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask"]
    ids = np.full((3, 7), 5, dtype=np.int64)
    (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert logits.shape == ((3, 7, len(TAGS)) if task == "token" else (3, len(LABELS)))


def test_a_file_that_says_something_else_is_not_kept(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = onnx_export._Asked.forward

    def moved(self: Any, *inputs: torch.Tensor) -> torch.Tensor:
        # As a traced file was: right for the example's shape alone.
        return asked(self, *inputs) + (0.0 if inputs[0].shape[1] == 8 else 0.02)

    write = onnx_export._write

    def written(asked_network: Any, path: Path) -> None:
        write(asked_network, path)
        monkeypatch.setattr(onnx_export._Asked, "forward", moved)

    monkeypatch.setattr(onnx_export, "_write", written)
    with pytest.raises(TrainingError, match=r"differ from the network's by up to 0\.02") as raised:
        onnx_export.export_onnx(saved)
    assert raised.value.code == "onnx_differs"
    assert list((saved / "onnx").iterdir()) == []


def test_a_missing_package_is_named_with_what_to_install(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(InputError, match=r"need onnx: pip install 'bertune\[onnx\]'"):
        onnx_export.export_onnx(saved)
    assert main([str(saved)]) == 2
    assert capsys.readouterr().err.startswith("error: onnx_not_installed: ")
    assert not (saved / "onnx").exists()


def test_a_folder_without_a_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: unknown_model: ")

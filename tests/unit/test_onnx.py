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

from model import command, onnx_export, onnx_packages
from model.config import Task, TrainConfig
from model.errors import InputError, TrainingError
from model.heads import join_labels
from model.network import build_network, load_base
from model.normalised_file import Examples
from model.onnx_card import tell_of_onnx
from model.onnx_command import main
from model.prediction import predict
from model.saved_model import SavedModel, read_saved
from model.tasks.catalogue import task_named
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


def length(text: str) -> str:
    return str(float(len(text)))


def labelled(examples: Examples, task: str) -> Examples:
    """The same texts with labels of another task, as the reader of data writes them."""
    rows = list(zip(examples.text_a, examples.labels, strict=True))
    if task == "token":
        return tagged(examples)
    if task == "multi_label":
        labels = ["|".join(sorted({label, "shipping"})) for _, label in rows]
    elif task == "regression":
        labels = [length(text) for text, _ in rows]
    else:
        labels = [join_labels([length(text), label]) for text, label in rows]
    return replace(examples, labels=labels)


BINS = ("< 20", "[20, 40)", ">= 40")
TASKS: dict[str, tuple[str, tuple[str, ...], dict[str, Task]]] = {
    "multi_label": ("micro_f1", LABELS, {}),
    "token": ("entity_f1", TAGS, {}),
    "regression": ("mae", BINS, {}),
    "multi_task": (
        "heads_mean",
        (*(f"score.{name}" for name in BINS), *(f"topic.{label}" for label in LABELS)),
        {"score": "regression", "topic": "single_label"},
    ),
}
"""Metric, labels and heads."""


@pytest.mark.parametrize(
    ("model_type", "task", "outputs"),
    [
        ("bert", "multi_label", 3),
        ("distilbert", "token", 7),
        ("modernbert", "regression", 1),
        ("bert", "multi_task", 4),
    ],
)
def test_a_file_of_any_task_says_what_its_network_says_of_padded_batches(
    tmp_path: Path,
    examples: Callable[[int, int], Examples],
    model_folder: Callable[[str], Path],
    model_type: str,
    task: Any,
    outputs: int,
) -> None:
    metric, labels, heads = TASKS[task]
    config = replace(CONFIG, model=str(model_folder(model_type)), task=task, heads=heads)
    config = replace(config, metric=metric, direction="minimize" if metric == "mae" else "maximize")
    folder = tmp_path / "saved"
    splits = [labelled(examples(60, 1), task), labelled(examples(24, 2), task)]
    trained(config, splits, labels).save(folder)
    session = onnxruntime.InferenceSession(onnx_export.export_onnx(folder))
    names = [entry.name for entry in session.get_inputs()]
    assert names[:2] == ["input_ids", "attention_mask"]
    assert ("token_type_ids" in names) == (model_type == "bert")
    base, saved = load_base(folder), read_saved(folder)
    head = task_named(task).saved(saved.labels, base.config).head
    network = build_network(base, head, device=CPU, dropout=None, trained=True).eval()
    generator = torch.Generator().manual_seed(0)
    for rows, width in ((1, 5), (7, 30), (4, 17)):
        ids = torch.randint(5, base.config.vocab_size, (rows, width), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, width // 2 :] = 0
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2}
        given = {name: given[name] for name in names}
        with torch.inference_mode():
            wanted = network(**given).logits.numpy()
        (found,) = session.run(["logits"], {name: value.numpy() for name, value in given.items()})
        assert found.shape == ((rows, width, outputs) if task == "token" else (rows, outputs))
        real = mask.numpy().astype(bool) if task == "token" else slice(None)
        np.testing.assert_allclose(found[real], wanted[real], atol=1e-4)
        assert (found[real].argmax(-1) == wanted[real].argmax(-1)).all()


def test_the_command_of_a_training_writes_it_and_the_card_says_how_it_is_asked(
    tmp_path: Path, examples: Callable[[int, int], Examples], capsys: pytest.CaptureFixture[str]
) -> None:
    split = examples(90, 1)
    rows = "".join(f"{text},{k}\n" for text, k in zip(split.text_a, split.labels, strict=True))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    out = tmp_path / "model"
    run = ["--train", str(tmp_path / "train.csv"), "--out", str(out), "--max-length", "12"]
    run += ["--epochs", "1", "--precision", "fp32", "--threads", "1"]
    assert command.main([*run, "--onnx"]) == 0
    assert capsys.readouterr().out.endswith(f"\nAs ONNX it is in {out}/onnx/model.onnx\n")
    card = (out / "README.md").read_text(encoding="utf-8")
    code = card.partition("## ONNX")[2].partition("```python\n")[2].partition("```")[0]
    found: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(out)), found)
    shares = np.exp(found["logits"][0]) / np.exp(found["logits"][0]).sum()
    (said,) = predict(out, ["some text"])
    assert LABELS[shares.argmax()] == said.label
    assert shares.max() == pytest.approx(said.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("saved", "call"),
    [
        ({"task": "token"}, 'tokenizer([["some", "text"]], is_split_into_words=True, '),
        ({"texts": 2}, 'tokenizer(["text 1"], ["text 2"], '),
        (
            {"texts": 3},
            'tokenizer(["text 1"], ["text 2" + tokenizer.sep_token + "text 3"], ',
        ),
        ({"texts": 2, "columns": "apart"}, 'tokenizer(["text 1", "text 2"], '),
    ],
)
def test_the_card_asks_for_what_a_row_holds(
    tmp_path: Path, saved: dict[str, Any], call: str
) -> None:
    (tmp_path / "README.md").write_text("# A model\n\n## Settings\n\nsome\n")
    texts = saved.pop("texts", 1)
    config = replace(CONFIG, **saved)
    for _ in range(2):  # a file that is written anew
        tell_of_onnx(tmp_path, SavedModel(config, LABELS, texts), onnx_export.FILE)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A model\n\n## ONNX\n\n`onnx/model.onnx` is the network")
    assert card.endswith("```\n\n## Settings\n\nsome\n")
    assert card.count(f"read = {call}padding=True") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert ("reads one sequence" in card) == (config.columns == "apart")


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


def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_packages, "find_spec", lambda name: None if name == "onnx" else name)


def test_a_network_that_cannot_be_translated_is_refused_by_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*arguments: Any, **options: Any) -> None:
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", failed)
    with pytest.raises(TrainingError, match=r"cannot translate the network: no such op") as raised:
        onnx_export.export_onnx(saved)
    assert raised.value.code == "onnx_failed"
    assert list((saved / "onnx").iterdir()) == []
    assert "ONNX" not in (saved / "README.md").read_text(encoding="utf-8")


def test_a_training_that_is_to_end_in_onnx_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the file is looked for, which does not exist."""
    run = ["--train", str(tmp_path / "none.csv"), "--onnx"]
    assert command.main(run) == 2
    assert "needs a folder" in capsys.readouterr().err
    without_onnx(monkeypatch)
    assert command.main([*run, "--out", str(tmp_path / "model")]) == 2
    assert capsys.readouterr().err.startswith("error: onnx_not_installed: ONNX files need onnx: ")


def test_a_missing_package_is_named_with_what_to_install(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_onnx(monkeypatch)
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

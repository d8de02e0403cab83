"""Every supported architecture: loaded from a folder, trained for a step, saved and loaded."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from model.checkpoint import SCRATCH
from model.classifier import Classifier
from model.errors import InputError
from model.network import BaseModel, Head, build_network, load_base, scratch_base
from model.tokens import Sequences

CPU = torch.device("cpu")
LABELS = ("ant", "bee", "cat")
FAMILIES = ["bert", "roberta", "distilbert", "electra", "modernbert", "albert", "mpnet"]
ROWS = Sequences(
    np.array([2, 9, 10, 11, 3, 2, 12, 3], dtype=np.int32),
    np.zeros(8, dtype=np.uint8),
    np.array([0, 5, 8]),
    0,
    0,
)


def classifier(base: BaseModel, **options: float) -> Classifier:
    torch.manual_seed(1)
    network = build_network(base, Head(LABELS), device=CPU, dropout=options.get("dropout"))
    return Classifier(network, base.max_positions, CPU, "fp32")


def logits(classifier: Classifier) -> torch.Tensor:
    classifier.network.eval()
    with torch.inference_mode():
        return classifier.logits(ROWS, np.array([0, 1]))


@pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2"])
def test_a_step_of_training_survives_a_round_trip_through_a_folder(
    family: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    trained = classifier(load_base(model_folder(family)))
    before = logits(trained)
    optimizer = torch.optim.SGD(trained.network.parameters(), lr=0.5)
    trained.network.train()
    functional.cross_entropy(
        trained.logits(ROWS, np.array([0, 1])), torch.tensor([0, 2])
    ).backward()
    optimizer.step()
    after = logits(trained)
    assert not torch.allclose(before, after, atol=1e-3)

    saved = tmp_path / "saved"
    trained.network.save_pretrained(saved)
    for path in model_folder(family).glob("tokenizer*"):
        (saved / path.name).write_bytes(path.read_bytes())
    torch.testing.assert_close(logits(classifier(load_base(saved))), after)


@pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2"])
def test_padding_does_not_change_what_a_row_gives(
    family: str, model_folder: Callable[[str], Path]
) -> None:
    network = classifier(load_base(model_folder(family)))
    together = logits(network)
    with torch.inference_mode():
        alone = network.logits(ROWS, np.array([1]))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2"])
def test_a_dropout_of_zero_leaves_nothing_random_in_training(
    family: str, model_folder: Callable[[str], Path]
) -> None:
    network = classifier(load_base(model_folder(family)), dropout=0.0)
    network.network.train()
    first, second = (network.logits(ROWS, np.array([0, 1])) for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_dropout_replaces_every_probability_of_the_model() -> None:
    network = classifier(scratch_base(SCRATCH["tiny"], 50), dropout=0.35).network
    probabilities = {m.p for m in network.modules() if isinstance(m, nn.Dropout)}
    assert probabilities == {0.35}


def test_training_a_network_leaves_the_shared_base_as_it_was(
    model_folder: Callable[[str], Path],
) -> None:
    base = load_base(model_folder("bert"))
    assert base.weights is not None
    before = {name: tensor.clone() for name, tensor in base.weights.items()}
    network = classifier(base).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    for name, tensor in base.weights.items():
        assert torch.equal(tensor, before[name]), name


def test_a_new_head_follows_the_seed_and_the_encoder_follows_the_folder(
    model_folder: Callable[[str], Path],
) -> None:
    base = load_base(model_folder("bert"))
    first, second = classifier(base).network, classifier(base).network
    torch.manual_seed(2)
    other = build_network(base, Head(LABELS), device=CPU, dropout=None)
    head = "classifier.weight"
    assert torch.equal(first.get_parameter(head), second.get_parameter(head))
    assert not torch.equal(first.get_parameter(head), other.get_parameter(head))
    assert base.weights is not None
    embeddings = first.get_parameter("bert.embeddings.word_embeddings.weight")
    assert torch.equal(embeddings, base.weights["embeddings.word_embeddings.weight"])


def test_loading_an_encoder_without_a_head_says_nothing(
    model_folder: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder("bert")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(load_base(folder))
    assert capfd.readouterr() == ("", "")


def test_a_head_for_other_labels_is_replaced(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("bert")
    seven = tuple("abcdefg")
    build_network(load_base(folder), Head(seven), device=CPU, dropout=None).save_pretrained(folder)
    network = build_network(load_base(folder), Head(LABELS), device=CPU, dropout=None)
    assert network.get_parameter("classifier.weight").shape == (3, 32)
    assert network.config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert network.config.label2id == {"ant": 0, "bee": 1, "cat": 2}


def test_the_norm_names_of_old_checkpoints_are_understood(
    model_folder: Callable[[str], Path],
) -> None:
    folder = model_folder("bert")
    expected = logits(classifier(load_base(folder)))
    path = folder / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(path)
    for new_name, old_name in old.items():
        weights = {f"{name.replace(new_name, old_name)}": t for name, t in weights.items()}
    save_file({f"bert.{name}": t for name, t in weights.items()}, path)
    torch.testing.assert_close(logits(classifier(load_base(folder))), expected)


def test_weights_stored_in_bf16_are_trained_in_fp32(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("bert")
    path = folder / "model.safetensors"
    save_file({name: t.bfloat16() for name, t in load_file(path).items()}, path)
    network = classifier(load_base(folder)).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_shards_are_read_through_their_index(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("bert")
    expected = logits(classifier(load_base(folder)))
    path = folder / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, folder / shard)
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    torch.testing.assert_close(logits(classifier(load_base(folder))), expected)


def test_weights_of_another_architecture_are_refused(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("bert")
    save_file({"conv.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    with pytest.raises(InputError) as raised:
        classifier(load_base(folder))
    assert raised.value.code == "wrong_weights"
    assert "bert.embeddings" in raised.value.detail


def test_a_file_cut_short_is_refused(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("bert")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as raised:
        load_base(folder)
    assert raised.value.code == "broken_weights"


def test_a_trained_model_without_its_head_is_refused(model_folder: Callable[[str], Path]) -> None:
    base = load_base(model_folder("bert"))
    with pytest.raises(InputError) as raised:
        build_network(base, Head(LABELS), device=CPU, dropout=None, trained=True)
    assert raised.value.code == "wrong_weights"


def test_a_scratch_model_has_the_stated_shape_and_the_vocabularys_size() -> None:
    network = classifier(scratch_base(SCRATCH["tiny"], 321)).network
    config = network.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (128, 2, 321)
    assert config._attn_implementation == "sdpa"

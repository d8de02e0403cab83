import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import (
    SCRATCH,
    CheckpointFacts,
    model_files,
    read_checkpoint,
    scratch_size,
)
from model.errors import InputError

BERT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "max_position_embeddings": 512,
    "vocab_size": 30522,
    "pad_token_id": 0,
}


def model_folder(folder: Path, config: Any = BERT, **files: str) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert caught.value.where == ("model",)
    return caught.value.code


def test_the_shape_of_a_bert_is_read_from_its_config(tmp_path: Path) -> None:
    facts = read_checkpoint(model_folder(tmp_path))
    assert facts == CheckpointFacts("bert", 384, 6, max_positions=512, vocab_size=30522)


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_positions_behind_the_padding_id_do_not_count(tmp_path: Path, model_type: str) -> None:
    config = BERT | {"model_type": model_type, "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_checkpoint(model_folder(tmp_path, config)).max_positions == 512
    del config["pad_token_id"]
    assert read_checkpoint(model_folder(tmp_path, config)).max_positions == 512


def test_distilberts_own_names_are_understood(tmp_path: Path) -> None:
    config = {
        "model_type": "distilbert",
        "dim": 768,
        "n_layers": 6,
        "max_position_embeddings": 512,
        "vocab_size": 28996,
    }
    facts = read_checkpoint(model_folder(tmp_path, config))
    assert (facts.hidden_size, facts.layers) == (768, 6)


@pytest.mark.parametrize(
    "name",
    [
        *("Albert", "Bert", "Camembert", "DebertaV2", "DistilBert"),
        *("Electra", "MPNet", "ModernBert", "Roberta", "XLMRoberta"),
    ],
)
def test_the_config_that_transformers_writes_can_be_read(tmp_path: Path, name: str) -> None:
    import transformers

    config = getattr(transformers, f"{name}Config")()
    config.save_pretrained(tmp_path)
    facts = read_checkpoint(tmp_path)
    assert facts.model_type == config.model_type
    assert facts.hidden_size == config.hidden_size
    assert facts.layers == config.num_hidden_layers
    assert facts.vocab_size == config.vocab_size


def test_a_model_of_another_family_is_refused_by_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"model_type": "gpt2"})
    with pytest.raises(InputError, match="gpt2") as caught:
        read_checkpoint(folder)
    assert caught.value.code == "unsupported_model"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model_type": "bert"}', "\xff"])
def test_a_folder_without_a_usable_config_is_unknown(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    assert code_of(read_checkpoint, tmp_path) == "unknown_model"


def test_exactly_the_files_that_training_needs_are_listed_with_their_hashes(
    tmp_path: Path,
) -> None:
    folder = model_folder(
        tmp_path,
        model__safetensors="weights",
        tokenizer__json="{}",
        vocab__txt="a",
        README__md="hello",
        pytorch_model__bin="pickle",
        training_args__bin="pickle",
    )
    files = model_files(folder)
    names = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert [file.path for file in files] == names
    assert files[1].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert files[1].bytes == 7


def test_shards_are_listed_by_their_index(tmp_path: Path) -> None:
    index = {
        "weight_map": {
            "a": "model-1.safetensors",
            "b": "model-2.safetensors",
            "c": "model-1.safetensors",
        }
    }
    folder = model_folder(tmp_path, vocab__txt="a")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_text("1")
    assert code_of(model_files, folder) == "no_safetensors"
    (folder / "model-2.safetensors").write_text("2")
    assert [file.path for file in model_files(folder)] == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "vocab.txt",
    ]


@pytest.mark.parametrize("weight_map", [None, {"a": "../secret"}, {"a": 1}])
def test_an_index_cannot_name_files_outside_the_folder(tmp_path: Path, weight_map: Any) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret").write_text("x")
    folder = model_folder(inside, vocab__txt="a")
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    assert code_of(model_files, folder) == "no_safetensors"


def test_pickled_weights_alone_are_refused_and_named(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, vocab__txt="a", pytorch_model__bin="pickle")
    with pytest.raises(InputError, match=r"pytorch_model\.bin") as caught:
        model_files(folder)
    assert caught.value.code == "no_safetensors"


def test_a_folder_without_config_or_tokenizer_has_no_model_files(tmp_path: Path) -> None:
    assert code_of(model_files, tmp_path) == "unknown_model"
    model_folder(tmp_path, model__safetensors="w")
    assert code_of(model_files, tmp_path) == "no_tokenizer"


def test_scratch_sizes_are_known_by_name() -> None:
    assert tuple(SCRATCH) == ("tiny", "mini", "small", "base")
    assert scratch_size("scratch:tiny") == SCRATCH["tiny"]
    assert all(size.hidden_size % size.heads == 0 for size in SCRATCH.values())


@pytest.mark.parametrize("model", ["scratch:huge", "scratch:", "tiny", "bert:tiny"])
def test_an_unknown_scratch_size_names_the_known_ones(model: str) -> None:
    with pytest.raises(InputError, match="scratch:tiny, scratch:mini") as caught:
        scratch_size(model)
    assert caught.value.code == "unknown_model"

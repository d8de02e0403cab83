"""A saved classifier on new texts, read and pooled as in its training.

For models that Transformers' pipeline cannot run as they were trained: texts in windows or in two
halves, and tokens pooled as no class of Transformers pools them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from model.batches import evaluation_batches
from model.classifier import Classifier
from model.config import TrainConfig
from model.devices import choose_device, resolve_precision
from model.errors import InputError
from model.evaluation import TOKENS_PER_BATCH
from model.export import read_settings
from model.network import Head, build_network, load_base, outputs_of
from model.tasks.learning_task import FACTS
from model.tokens import load_tokenizer, tokenize
from model.windows import read_texts


@dataclass(frozen=True, slots=True)
class Prediction:
    label: str
    probability: float


@torch.inference_mode()
def predict(
    folder: Path | str,
    texts: Sequence[str],
    second_texts: Sequence[str] | None = None,
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> list[Prediction]:
    """The most probable label of every text (or pair), in their order.

    Raises `InputError` for a folder that is no `single_label` classifier of ours.
    """
    place = choose_device(device)
    base, tokenizer = load_base(Path(folder)), load_tokenizer(Path(folder))
    config = TrainConfig(**read_settings(base.config))
    task = getattr(base.config, FACTS, {"task": "single_label"})["task"]
    if task != "single_label":
        detail = f"The model is for {task}; `predict` asks classifiers of one class per text."
        raise InputError("wrong_task", detail, ("model",))
    labels = outputs_of(base.config)
    network = build_network(base, Head(labels), device=place, dropout=None, trained=True)
    precision = resolve_precision(config.precision, place)
    classifier = Classifier(network.eval(), base.max_positions, place, precision)
    if not texts:
        return []
    sequences = read_texts(tokenize(tokenizer, texts, second_texts), config)
    found: dict[int, Prediction] = {}
    for positions in evaluation_batches(sequences.lengths, TOKENS_PER_BATCH[place.type]):
        probabilities = classifier.logits(sequences, positions).softmax(dim=-1).cpu().numpy()
        best = np.argmax(probabilities, axis=1)
        for position, chosen, row in zip(positions, best, probabilities, strict=True):
            found[int(position)] = Prediction(labels[chosen], float(row[chosen]))
    return [found[position] for position in range(len(texts))]

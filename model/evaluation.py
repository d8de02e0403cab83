"""A network's predictions on a split, during training and from a saved folder."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from model.batches import Positions, evaluation_batches
from model.classifier import Classifier
from model.config import Precision, Truncation
from model.data import Examples
from model.devices import device_errors_named, fast_matrix_products, resolve_precision
from model.errors import InputError
from model.memory import PartSize, memory_errors_named, run_in_parts
from model.metrics import Evaluation, Predictions, score
from model.network import build_network, load_base
from model.tokens import load_tokenizer, tokenize
from model.trial_data import LabelledSplit, check_fit, label_split

TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536}
"""Padded tokens per forward pass: enough to keep the device busy, small beside the weights."""


def evaluate(
    folder: Path,
    examples: Examples,
    labels: tuple[str, ...],
    *,
    max_length: int,
    truncation: Truncation = "head",
    batch_size: int | None = None,
    device: torch.device,
    precision: Precision = "auto",
) -> Evaluation:
    """Run a saved classifier over ``examples``.

    ``batch_size`` bounds the rows per forward pass; None takes as many as keep the device busy.
    It does not change the results. Raises `InputError` `wrong_labels` when the folder's model
    was trained on other labels, or in another order.
    """
    base, tokenizer = load_base(folder), load_tokenizer(folder)
    check_fit(base, tokenizer, max_length)
    found = tuple((base.config.id2label or {}).values())
    if found != labels:
        detail = f"The model's labels are {', '.join(found)}; the data's {', '.join(labels)}."
        raise InputError("wrong_labels", detail, ("labels",))
    table = tokenize(tokenizer, examples.text_a, examples.text_b)
    split = label_split("test", examples, labels, table.fit(max_length, truncation))
    used = resolve_precision(precision, device)
    with device_errors_named(), memory_errors_named(), fast_matrix_products(device):
        network = build_network(base, labels, device=device, dropout=None, trained=True)
        classifier = Classifier(network, base.max_positions, device, used)
        return evaluate_split(classifier, split, labels, max_rows=batch_size)


@torch.inference_mode()
def evaluate_split(
    classifier: Classifier,
    split: LabelledSplit,
    labels: tuple[str, ...],
    *,
    max_rows: int | None = None,
) -> Evaluation:
    """Predict every row of ``split`` in evaluation mode, longest rows first."""
    classifier.network.eval()
    device, lengths = classifier.device, split.sequences.lengths

    def predict(part: Positions) -> torch.Tensor:
        """[3, rows] fp32: predicted label, its probability, and the row's cross-entropy."""
        logits = classifier.logits(split.sequences, part)
        probability, predicted = logits.softmax(dim=-1).max(dim=-1)
        targets = torch.from_numpy(split.label_ids[part]).to(device)
        loss = functional.cross_entropy(logits, targets, reduction="none")
        return torch.stack([predicted.float(), probability, loss])

    part_size = PartSize()
    order: list[Positions] = []
    columns: list[torch.Tensor] = []
    for positions in evaluation_batches(lengths, TOKENS_PER_BATCH[device.type], max_rows):
        order.append(positions)
        columns.extend(run_in_parts(predict, positions, lengths, part_size))
    found = torch.cat(columns, dim=1).cpu().numpy()
    in_order = np.empty_like(found)
    in_order[:, np.concatenate(order)] = found
    predicted, probability, loss = in_order
    predictions = Predictions(split.rows, split.label_ids, predicted.astype(np.int64), probability)
    return score(labels, predictions, float(loss.mean(dtype=np.float64)))

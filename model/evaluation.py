"""A network's predictions on a split, during training and from a saved folder."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.batches import Positions, evaluation_batches
from model.classifier import Classifier
from model.config import TrainConfig
from model.devices import device_errors_named, fast_matrix_products, resolve_precision
from model.memory import PartSize, memory_errors_named, run_in_parts
from model.metrics import Evaluation
from model.network import build_network, load_base
from model.normalised_file import Examples
from model.progress import OnProgress, unheard
from model.tasks.catalogue import task_named
from model.tasks.labelled_split import LabelledSplit
from model.tasks.learning_task import LearningTask
from model.tokens import load_tokenizer
from model.trial_data import check_fit
from model.windows import read_texts

TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536}
"""Padded tokens per forward pass: enough to keep the device busy, small beside the weights."""


def evaluate(
    folder: Path,
    examples: Examples,
    labels: tuple[str, ...],
    config: TrainConfig,
    *,
    batch_size: int | None = None,
    device: torch.device,
    on_progress: OnProgress = unheard,
) -> Evaluation:
    """Run a saved model over ``examples``, which are read as ``config`` has them read; ``labels``
    are those of the data set.

    ``batch_size`` bounds the rows per forward pass; None takes as many as keep the device busy.
    It does not change the results. Raises `InputError` `wrong_labels` when the folder's model
    was trained on other labels, or in another order.
    """
    base, tokenizer = load_base(folder), load_tokenizer(folder)
    check_fit(base, tokenizer, config.max_length)
    saved = task_named(config.task).saved(labels, base.config)
    table = saved.tokenize(tokenizer, examples, progress=partial(on_progress, "tokenizing"))
    split = saved.split("test", examples, read_texts(table, config))
    used = resolve_precision(config.precision, device)
    with device_errors_named(), memory_errors_named(), fast_matrix_products(device):
        network = build_network(base, saved.head, device=device, dropout=None, trained=True)
        saved.from_saved(network)
        classifier = Classifier(network, base.max_positions, device, used)
        return evaluate_split(
            classifier, split, saved, max_rows=batch_size, on_progress=on_progress
        )


@torch.inference_mode()
def evaluate_split(
    classifier: Classifier,
    split: LabelledSplit,
    task: LearningTask,
    *,
    max_rows: int | None = None,
    on_progress: OnProgress = unheard,
) -> Evaluation:
    """Predict every row of ``split`` in evaluation mode, longest rows first."""
    classifier.network.eval()
    device, lengths = classifier.device, split.sequences.lengths

    def predict(part: Positions) -> torch.Tensor:
        return task.observe(classifier.logits(split.sequences, part), split, part)

    part_size = PartSize()
    order: list[Positions] = []
    parts: list[torch.Tensor] = []
    done = 0
    for positions in evaluation_batches(lengths, TOKENS_PER_BATCH[device.type], max_rows):
        order.append(split.units(positions))
        parts.extend(run_in_parts(predict, positions, lengths, part_size))
        done += len(positions)
        on_progress("evaluating", done, len(split))
    found = torch.cat(parts).cpu().numpy()
    return task.evaluate(split, found[np.argsort(np.concatenate(order))])

"""A sample of a study's train texts in the model's word pieces, made without torch."""

import shutil
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from model.checkpoint import scratch_size
from model.data import read_examples
from model.splits import Positions
from model.tokens import TokenTable, load_tokenizer, tokenize
from model.vocabulary import save_tokenizer, train_wordpiece
from service.folders import Folders
from service.held_out import divide, needs_indices
from service.models import CatalogueEntry
from service.store.identifiers import new_id
from service.store.tables import Dataset

MAX_ROWS = 20_000


def sample_tokens(
    folders: Folders, dataset: Dataset, model: CatalogueEntry, seed: int
) -> TokenTable:
    """Tokenize up to 20,000 train rows, evenly spaced over the train split of this seed."""
    tokenizer = _tokenizer(folders, dataset, model, seed)
    rows = _train_rows(folders, dataset, seed)
    picks = np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).round().astype(np.int64)
    sample = read_examples(_train_file(folders, dataset), rows[picks])
    return tokenize(tokenizer, sample.text_a, sample.text_b)


def _train_file(folders: Folders, dataset: Dataset) -> Path:
    return folders.dataset(dataset.id) / "train.parquet"


def _train_rows(folders: Folders, dataset: Dataset, seed: int) -> Positions:
    if needs_indices(dataset):
        return divide(folders, dataset, seed).train
    return np.arange(dataset.summary["rows"]["train"], dtype=np.int64)


def _tokenizer(folders: Folders, dataset: Dataset, model: CatalogueEntry, seed: int) -> Tokenizer:
    if model.folder is not None:
        return load_tokenizer(model.folder)
    size = scratch_size(model.facts["name"]).vocab_size
    split = str(seed) if needs_indices(dataset) else "all"
    folder = folders.cache / "vocabularies" / f"{dataset.id}-{split}-{size}"
    if not folder.is_dir():
        _train_vocabulary(folders, dataset, seed, size, folder)
    return load_tokenizer(folder)


def _train_vocabulary(
    folders: Folders, dataset: Dataset, seed: int, size: int, target: Path
) -> None:
    """Train on the whole train split, as a worker does; the folder appears by a rename."""
    rows = _train_rows(folders, dataset, seed)
    examples = read_examples(_train_file(folders, dataset), rows)
    tokenizer = train_wordpiece(chain(examples.text_a, examples.text_b or ()), size)
    partial = target.with_name(f".{target.name}-{new_id()}")
    save_tokenizer(tokenizer, partial)
    try:
        partial.rename(target)
    except OSError:
        # Another request made the same vocabulary meanwhile.
        shutil.rmtree(partial)
        if not target.is_dir():
            raise

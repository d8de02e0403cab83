"""A sample of a study's train texts in the model's word pieces, made without torch.

Bounded in time and memory whatever the data set's size: rows are picked evenly over the train
split and streamed from its file.
"""

import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from model.checkpoint import scratch_size
from model.splits import Positions
from model.text_columns import row_texts, text_fields
from model.tokens import TokenTable, load_tokenizer, tokenize, unknown_share
from model.vocabulary import save_tokenizer, train_wordpiece
from service.folders import Folders
from service.intake.held_out import divide, needs_indices
from service.intake.models import CatalogueEntry
from service.store.identifiers import new_id
from service.store.tables import Dataset

MAX_ROWS = 20_000
"""Rows that are tokenized."""
FEW_ROWS = 500
"""Rows that are tokenized at a submission, which does not wait for more."""
MAX_VOCABULARY_ROWS = 50_000
"""Rows that a vocabulary is trained on here; a worker takes the whole train split."""

Texts = list[list[str]]
"""Column by column."""


def sample_tokens(
    folders: Folders, dataset: Dataset, model: CatalogueEntry, seed: int
) -> TokenTable:
    """Tokenize up to 20,000 rows of the train split that belongs to this study seed.

    For a `scratch:` model the vocabulary is that of a worker up to 50,000 rows, beyond it one of
    50,000 of them; it is kept in the cache folder.
    """
    file = folders.dataset(dataset.id) / "train.parquet"
    rows = _train_rows(folders, dataset, seed)
    if model.folder is not None:
        tokenizer = load_tokenizer(model.folder)
    else:
        size = scratch_size(model.facts["name"]).vocab_size
        split = str(seed) if needs_indices(dataset) else "all"
        folder = folders.cache / "vocabularies" / f"{dataset.id}-{split}-{size}"
        tokenizer = _vocabulary(folder, file, _spread(rows, MAX_VOCABULARY_ROWS), size)
    return tokenize(tokenizer, *_read_texts(file, _spread(rows, MAX_ROWS)))


def sample_unknown_share(folders: Folders, dataset: Dataset, model: CatalogueEntry) -> float:
    """The share of word pieces that the model's own vocabulary does not know, of a few hundred
    rows; a vocabulary that is made from the data knows them."""
    if model.folder is None:
        return 0.0
    file = folders.dataset(dataset.id) / "train.parquet"
    rows = _spread(np.arange(dataset.summary["rows"]["train"], dtype=np.int64), FEW_ROWS)
    return unknown_share(tokenize(load_tokenizer(model.folder), *_read_texts(file, rows)))


def _train_rows(folders: Folders, dataset: Dataset, seed: int) -> Positions:
    if needs_indices(dataset):
        return divide(folders, dataset, seed).train
    return np.arange(dataset.summary["rows"]["train"], dtype=np.int64)


def _spread(rows: Positions, most: int) -> Positions:
    """Up to ``most`` of the ascending ``rows``, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _read_texts(file: Path, rows: Positions) -> Texts:
    """Stream the texts at the 0-based, ascending ``rows`` of a normalised file."""
    parts = []
    start = 0
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(columns=text_fields(parquet.schema_arrow.names)):
            first, last = np.searchsorted(rows, [start, start + batch.num_rows])
            parts.append(batch.take(pa.array(rows[first:last] - start)))
            start += batch.num_rows
    texts = row_texts(pa.Table.from_batches(parts))
    return [list(column) for column in zip(*texts, strict=True)] or [[]]


def _vocabulary(folder: Path, file: Path, rows: Positions, size: int) -> Tokenizer:
    """Load the vocabulary in ``folder``; train it first where it is missing."""
    if not folder.is_dir():
        texts = chain.from_iterable(_read_texts(file, rows))
        _publish(train_wordpiece(texts, size), folder)
    return load_tokenizer(folder)


def _publish(tokenizer: Tokenizer, folder: Path) -> None:
    """Save under another name and rename, so that no request reads a half-written vocabulary."""
    partial = folder.with_name(f".{folder.name}-{new_id()}")
    save_tokenizer(tokenizer, partial)
    try:
        partial.rename(folder)
    except OSError:
        # Another request made the same vocabulary meanwhile.
        shutil.rmtree(partial)
        if not folder.is_dir():
            raise

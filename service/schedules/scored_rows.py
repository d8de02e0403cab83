"""Which rows of a split a trial answered rightly, by what the rows say.

A row is known by its texts and its label, not by its number: so the answers of two trials can be
paired also when their data sets differ, and only on rows that both held out.
"""

import csv
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq

from model.text_columns import row_texts, text_fields

BATCH_ROWS = 10_000


class UnreadablePredictionsError(Exception):
    """The predictions or the data are gone, or are not what a worker of ours writes."""


def scored_rows(predictions: Path, data: Path) -> dict[bytes, bool]:
    """From a digest of each distinct row to whether its label was predicted.

    ``predictions`` is a trial's CSV, ``data`` the normalised Parquet file that its rows are of;
    what is right is said by the data. Raises `UnreadablePredictionsError`.
    """
    try:
        predicted = _predicted(predictions)
        found: dict[bytes, bool] = {}
        with pq.ParquetFile(data) as file:
            names = ["row", *text_fields(file.schema_arrow.names), "label"]
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                columns = (batch["row"].to_pylist(), row_texts(batch), batch["label"].to_pylist())
                for row, texts, label in zip(*columns, strict=True):
                    if row in predicted:
                        found.setdefault(_digest(*texts, label), predicted[row] == label)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        csv.Error,
    ) as error:
        raise UnreadablePredictionsError(str(error)) from error
    return found


def _predicted(path: Path) -> dict[int, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["row"]): row["predicted"] for row in csv.DictReader(file)}


def _digest(*texts: str) -> bytes:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).digest()

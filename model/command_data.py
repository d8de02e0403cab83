"""The files of a training command as it trains on them: read, divided, and what is to be said."""

import argparse
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import SPLITS, Split
from model.data import fingerprint, normalise
from model.data_arguments import read_data_options
from model.data_warnings import data_warnings
from model.dataset_summary import DataSummary
from model.division import divide_train, wanted_fractions
from model.normalised_file import Examples, read_examples
from model.splits import split_positions


@dataclass(frozen=True, slots=True)
class CommandData:
    """What was read: the splits, and what the reader has to say of them."""

    splits: dict[Split, Examples]
    summary: DataSummary
    key: str
    warnings: list[str]

    @property
    def rows(self) -> dict[Split, int]:
        return {split: len(self.splits[split].rows) for split in SPLITS if split in self.splits}

    @property
    def fields(self) -> dict[str, Any]:
        """Those of `TrainData`."""
        return {
            "train": self.splits["train"],
            "validation": self.splits["validation"],
            "labels": self.summary.labels,
            "dataset_key": self.key,
        }


def read_data(options: argparse.Namespace) -> CommandData:
    """Read and divide the files that ``options`` name. Raises `InputError` as the reader does."""
    given = {split: getattr(options, split) for split in SPLITS}
    sources = {split: path for split, path in given.items() if path is not None}
    how = read_data_options(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        summary = normalise(sources, how, folder)
        splits = {split: read_examples(folder / f"{split}.parquet") for split in sources}
        wanted = wanted_fractions(how, sources)
        if "validation" not in splits or wanted.test_fraction > 0:
            path = folder / "train.parquet"
            repeated_texts = summary.repeated_texts > 0
            rows = divide_train(
                path, summary.task, wanted, seed=options.seed, repeated_texts=repeated_texts
            )
            for split, positions in zip(SPLITS, split_positions(rows), strict=True):
                if split == "train" or len(positions):
                    splits[split] = read_examples(path, positions)
    facts = dataclasses.asdict(summary)
    warnings = data_warnings(facts, task=summary.task, keeps=how.duplicates == "keep")
    return CommandData(splits, summary, fingerprint(summary, how), warnings)

"""The rows of a round: a seeded draw from a real data set, or made-up texts with a cue."""

import csv
from pathlib import Path

import numpy as np

from comparison.plan import Case

Row = tuple[str, str]
WORDS = ("card", "please", "my", "the", "a", "today", "again", "still", "new", "app", "with", "and")
CUES = {"login": "password", "payment": "refund", "shipping": "parcel", "other": "question"}
SHORTEST_WORDS = 4


def write_rows(case: Case, folder: Path, seed: int) -> None:
    """Write ``train.csv`` and ``dev.csv`` with columns text,label. Equal seeds, equal rows."""
    generator = np.random.default_rng(seed)
    if case.data.startswith("synthetic:"):
        longest = int(case.data.removeprefix("synthetic:"))
        train = synthetic_rows(case.rows, longest, generator)
        validation = synthetic_rows(case.validation_rows, longest, generator)
    else:
        train = _draw(read_rows(Path(case.data) / "train.csv"), case.rows, generator)
        validation = _draw(read_rows(Path(case.data) / "dev.csv"), case.validation_rows, generator)
    known = {label for _, label in train}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.csv", train)
    # A class that the draw left out of the train rows cannot be learned.
    _write(folder / "dev.csv", [row for row in validation if row[1] in known])


def read_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def synthetic_rows(count: int, longest: int, generator: np.random.Generator) -> list[Row]:
    """Texts of 4 to ``longest`` words, one of which decides the label."""
    labels = [str(label) for label in generator.choice(list(CUES), size=count)]
    return [(_text(CUES[label], longest, generator), label) for label in labels]


def _text(cue: str, longest: int, generator: np.random.Generator) -> str:
    size = int(generator.integers(SHORTEST_WORDS, longest))
    words = [str(word) for word in generator.choice(WORDS, size=size)]
    words.insert(int(generator.integers(0, min(size, SHORTEST_WORDS))), cue)
    return " ".join(words)


def _draw(rows: list[Row], count: int, generator: np.random.Generator) -> list[Row]:
    return [rows[index] for index in generator.permutation(len(rows))[:count]]


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])

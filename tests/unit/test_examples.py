import csv
from collections import Counter
from pathlib import Path
from random import Random

import pytest

import studies.examples
from model.config import DataOptions
from model.data import normalise
from studies.examples import generate
from studies.examples.phrases import AMBIGUOUS, PARTS, PAST, REQUESTS, SMALL_TALK

SHIPPED = Path(studies.examples.__file__).parent
FILES = ("helpdesk-train.csv", "helpdesk-test.csv")


@pytest.mark.parametrize("name", FILES)
def test_the_generator_writes_the_shipped_files_byte_for_byte(tmp_path: Path, name: str) -> None:
    generate.main(["--out", str(tmp_path)])
    assert (tmp_path / name).read_bytes() == (SHIPPED / name).read_bytes()


def test_the_files_are_a_data_set_without_repeats_or_leaks(tmp_path: Path) -> None:
    summary = normalise(
        {"train": SHIPPED / FILES[0], "test": SHIPPED / FILES[1]}, DataOptions(), tmp_path / "out"
    )
    assert summary.rows == {"train": 2600, "test": 500}
    assert summary.labels == tuple(sorted(REQUESTS))
    assert summary.duplicates == {"train": 0, "test": 0}
    assert summary.overlap == {"test": 0}
    assert sum((SHIPPED / name).stat().st_size for name in FILES) < 500_000


def test_sequence_length_matters_because_most_requests_stand_late() -> None:
    with (SHIPPED / FILES[0]).open(encoding="utf-8", newline="") as file:
        lengths = sorted(len(row["text"].split()) for row in csv.DictReader(file))
    assert lengths[len(lengths) // 10] < 16 < lengths[len(lengths) // 4]
    assert lengths[-len(lengths) // 4] > 32
    assert lengths[-1] < 96


def test_classes_are_drawn_in_their_shares() -> None:
    tickets = generate.generate(4000, Random(1), set())
    counts = Counter(ticket.label for ticket in tickets)
    for label, share in generate.SHARES.items():
        assert abs(counts[label] / 4000 - share) < 0.03, label


def test_every_slot_has_a_filling_and_every_filling_a_use() -> None:
    phrases = [*PAST, *SMALL_TALK, *(request for _, _, request in AMBIGUOUS)]
    phrases += [phrase for choices in (*REQUESTS.values(), *PARTS.values()) for phrase in choices]
    used = {slot for phrase in phrases for slot in generate._SLOT.findall(phrase)}
    assert used - set(PARTS) == set()
    assert set(PARTS) - used == set()
    assert {label for usual, other, _ in AMBIGUOUS for label in (usual, other)} <= set(REQUESTS)

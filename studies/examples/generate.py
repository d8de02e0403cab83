"""Write the example help-desk tickets: ``python -m studies.examples.generate [--out DIR]``.

Seeded, so that the same files come out everywhere; README.md beside this file says what makes
them hard. Only `random.Random.random` is drawn from, because that is the one method whose
sequence Python promises to keep from version to version.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from studies.examples.phrases import (
    AMBIGUOUS,
    CLOSINGS,
    GREETINGS,
    PARTS,
    PAST,
    REQUESTS,
    SMALL_TALK,
)

SEED = 20
TRAIN_ROWS = 2600
TEST_ROWS = 500

SHARES = {
    "login": 0.20,
    "delivery": 0.16,
    "refund": 0.15,
    "password": 0.13,
    "invoice": 0.12,
    "bug": 0.09,
    "cancel": 0.08,
    "wish": 0.07,
}
"""How often each class is drawn."""
CLOSE_CLASS = {"login": "password", "password": "login", "refund": "invoice", "invoice": "refund"}

AMBIGUOUS_SHARE = 0.08
AMBIGUOUS_USUAL = 0.65
NOISE_SHARE = 0.04
REQUEST_FIRST_SHARE = 0.35
PAST_SHARE = 0.4
TYPO_SHARE = 0.025

_SLOT = re.compile(r"\{(\w+)\}")
T = TypeVar("T")


class Ticket(NamedTuple):
    """One row of the files."""

    text: str
    label: str


def generate(rows: int, rng: Random, taken: set[str]) -> list[Ticket]:
    """Return ``rows`` tickets whose texts are not in ``taken``, and add them to it."""
    tickets: list[Ticket] = []
    while len(tickets) < rows:
        ticket = _ticket(rng)
        if ticket.text not in taken:
            taken.add(ticket.text)
            tickets.append(ticket)
    return tickets


def _ticket(rng: Random) -> Ticket:
    label, request = _request(rng)
    if rng.random() < NOISE_SHARE:  # whoever filed the ticket clicked the wrong topic
        label = CLOSE_CLASS.get(label) or _pick(rng, tuple(SHARES))
    talk = [_expand(rng, phrase) for phrase in _talk(rng)]
    request_first = rng.random() < REQUEST_FIRST_SHARE
    sentences = [request, *talk] if request_first else [*talk, request]
    greeting = [_expand(rng, _pick(rng, GREETINGS)) + ","] if rng.random() < 0.6 else []
    closing = [_expand(rng, _pick(rng, CLOSINGS))] if rng.random() < 0.5 else []
    body = [sentence if sentence.endswith("?") else sentence + "." for sentence in sentences]
    text = " ".join([*greeting, *body, *closing])
    return Ticket(" ".join(_mistype(rng, word) for word in text.split(" ")), label)


def _request(rng: Random) -> tuple[str, str]:
    if rng.random() < AMBIGUOUS_SHARE:
        usual, other, phrase = _pick(rng, AMBIGUOUS)
        label = usual if rng.random() < AMBIGUOUS_USUAL else other
    else:
        label = _weighted(rng, SHARES)
        phrase = _pick(rng, REQUESTS[label])
    return label, _expand(rng, phrase)


def _talk(rng: Random) -> list[str]:
    """Return what stands around the request: nothing, a sentence, or a long story."""
    length = rng.random()
    count = 0 if length < 0.25 else 1 if length < 0.6 else 2 if length < 0.85 else 3
    left = list(SMALL_TALK)
    phrases = [left.pop(int(rng.random() * len(left))) for _ in range(count)]
    if count and rng.random() < PAST_SHARE:
        phrases[int(rng.random() * count)] = _pick(rng, PAST)
    return phrases


def _expand(rng: Random, phrase: str) -> str:
    while _SLOT.search(phrase):
        phrase = _SLOT.sub(lambda slot: _pick(rng, PARTS[slot[1]]), phrase)
    return phrase


def _mistype(rng: Random, word: str) -> str:
    """Swap two letters or leave one out, now and then."""
    if len(word) < 4 or rng.random() >= TYPO_SHARE:
        return word
    at = 1 + int(rng.random() * (len(word) - 2))
    if rng.random() < 0.5:
        return word[:at] + word[at + 1 :]
    return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]


def _pick(rng: Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]


def _weighted(rng: Random, shares: dict[str, float]) -> str:
    point = rng.random() * sum(shares.values())
    for name, share in shares.items():
        point -= share
        if point < 0:
            return name
    return next(reversed(shares))


def write(tickets: Iterable[Ticket], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Ticket._fields)
        writer.writerows(tickets)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the example help-desk tickets.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    rng = Random(SEED)
    taken: set[str] = set()
    write(generate(TRAIN_ROWS, rng, taken), out / "helpdesk-train.csv")
    write(generate(TEST_ROWS, rng, taken), out / "helpdesk-test.csv")


if __name__ == "__main__":
    main()

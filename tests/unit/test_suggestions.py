"""What is suggested for a name that is not there."""

import pytest

from service.terminal.suggestions import did_you_mean


@pytest.mark.parametrize(
    ("wanted", "known", "said"),
    [
        ("tikcets", ["tickets", "helpdesk"], " Did you mean 'tickets'?"),
        ("TICKETS", ["tickets"], " Did you mean 'tickets'?"),
        ("tick", ["tickets-2026-11-24", "helpdesk"], " Did you mean 'tickets-2026-11-24'?"),
        ("nothing like it", ["tickets"], ""),
        ("tickets", [], ""),
        ("", ["tickets"], ""),
    ],
)
def test_near_is_what_differs_little_or_begins_so(wanted: str, known: list[str], said: str) -> None:
    assert did_you_mean(wanted, known) == said


def test_at_most_three_are_named_and_each_once() -> None:
    known = ["night", "nightly", "nightly", "nightly-1", "nightly-2", "nightly-3"]
    said = did_you_mean("nightly-", known)
    assert said.count("'") == 6
    assert len(set(said.split("'")[1::2])) == 3

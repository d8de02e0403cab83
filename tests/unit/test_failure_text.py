"""One line of a failure: the one that says most."""

import pytest

from service.failure_text import brief

TRACEBACK = """Traceback (most recent call last):
  File "trainer.py", line 3, in train
    raise ValueError("no rows")
ValueError: no rows
"""


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        ("The loss is NaN.\nLower the rate.", "The loss is NaN."),
        (TRACEBACK, "ValueError: no rows"),
        (f"Quarantined; the last: {TRACEBACK}", "Quarantined; the last: ValueError: no rows"),
        ("", ""),
        ("\n", ""),
    ],
)
def test_a_failure_is_told_by_the_line_that_says_most(detail: str, line: str) -> None:
    assert brief(detail) == line

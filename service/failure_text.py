"""What to show of a failure where there is room for one line: of a traceback, its last."""

TRACEBACK = "Traceback (most recent call last):"


def brief(detail: str) -> str:
    """The line of ``detail`` that says most: the first one, but of a traceback the error itself."""
    lines = detail.strip().splitlines() or [""]
    before, traceback, _ = lines[0].partition(TRACEBACK)
    return before + lines[-1].strip() if traceback else lines[0]

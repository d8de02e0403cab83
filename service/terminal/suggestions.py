"""What somebody may have meant by a name that is not there."""

from collections.abc import Sequence
from difflib import get_close_matches

MAX_SUGGESTIONS = 3


def did_you_mean(wanted: str, known: Sequence[str]) -> str:
    """A sentence with a space before it, or nothing: ` Did you mean 'tickets' or 'ticks'?`.

    Near are names that begin with what was written, or that differ from it by little.
    """
    by_folded: dict[str, str] = {}
    for name in known:
        by_folded.setdefault(name.casefold(), name)
    folded = wanted.casefold()
    begun = [name for name in by_folded if folded and name.startswith(folded)]
    alike = get_close_matches(folded, by_folded, n=MAX_SUGGESTIONS)
    near = list(dict.fromkeys([*alike, *begun]))[:MAX_SUGGESTIONS]
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[name]) for name in near)}?"

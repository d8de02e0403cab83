"""From BIO tags to the entities that they speak of, as the evaluation of entities counts them.

The rules of seqeval's default: an `I-` after `O`, or after another type, begins an entity as `B-`
does.
"""

from collections.abc import Sequence

Entities = dict[tuple[int, int], str]
"""Types by the first token and the one behind the last."""


def entities(tags: Sequence[str]) -> Entities:
    found: Entities = {}
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        goes_on = tag.startswith("I-") and tag[2:] == kind
        if kind and not goes_on:
            found[start, place] = kind
        if not goes_on:
            start, kind = place, tag[2:]
    return found

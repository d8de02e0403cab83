"""A BIO tag per token."""

import re
from collections.abc import Callable, Sequence

from model.cells import Where, as_text, at
from model.errors import InputError
from model.labels.label_reader import LabelReader
from model.measures import NOTHING, entity_types
from model.split_tally import SplitTally

OUTSIDE = "O"
_TAG = re.compile(r"O|[BI]-\S+")


class TagReader(LabelReader):
    """The tags joined by spaces, and so are the tokens, none of which holds white space.

    A cell is a list, or a text with its parts between white space. The data set's labels are `O`
    and both tags of every type, whether or not train has both.
    """

    task = "token"
    text_names = ("tokens",)
    label_names = ("tags", "label")

    def texts(self, cells: Sequence[object], where: Where) -> list[str]:
        if len(cells) > 1:
            detail = f"{at(where)} has a second text; tokens are tagged in one."
            raise InputError("bad_row", detail, where)
        return [" ".join(_parts(cells[0], where))]

    def repaired(self, text: str, repair: Callable[[str], str]) -> str:
        """Token by token; one that would not be one token afterwards stays as it is."""
        tokens = []
        for token in text.split():
            mended = repair(token)
            tokens.append(mended if mended.split() == [mended] else token)
        return " ".join(tokens)

    def label(self, cell: object, where: Where) -> str | None:
        tags = _parts(cell, where)
        wrong = next((tag for tag in tags if not _TAG.fullmatch(tag) or tag[2:] == NOTHING), None)
        if wrong is not None:
            detail = (
                f"{at(where)} has the tag {wrong[:80]!r}; a tag is O, or B- or I- and the name of "
                "a type, such as B-person."
            )
            raise InputError("bad_label", detail, where)
        return " ".join(tags) or None

    def check(self, texts: Sequence[str], label: str, where: Where) -> None:
        tokens, tags = len(texts[0].split()), len(label.split(" "))
        if tokens != tags:
            detail = f"{at(where)} has {tokens} tokens but {tags} tags."
            raise InputError("bad_row", detail, where)

    def classes_in(self, label: str) -> Sequence[str]:
        return tuple(dict.fromkeys(label.split(" ")))

    def count(self, tally: SplitTally, label: str) -> None:
        tally.labels.update(label.split(" "))

    def labels(self, train: SplitTally) -> tuple[str, ...]:
        types = entity_types(tuple(train.labels))
        if not types:
            detail = "Every token of train is tagged O; there is nothing to find."
            raise InputError("one_class", detail, ("train",))
        return (OUTSIDE, *(f"{place}-{name}" for name in types for place in "BI"))

    def strata(self, tally: SplitTally, labels: Sequence[str]) -> list[int]:  # noqa: ARG002
        return [tally.rows]

    def kinds(self, labels: Sequence[str]) -> list[Sequence[str]]:
        return [entity_types(self.classes_in(label)) for label in labels]


def _parts(cell: object, where: Where) -> list[str]:
    """The tokens, or the tags, of a cell."""
    if not isinstance(cell, list | tuple):
        return as_text(cell, where).split()
    parts = [as_text(part, where) for part in cell]
    wrong = next((part for part in parts if len(part.split()) != 1 or part != part.strip()), None)
    if wrong is not None:
        detail = f"{at(where)} has {wrong[:80]!r} where one token or tag without space belongs."
        raise InputError("bad_row", detail, where)
    return parts

"""The special tokens that a tokenizer puts around texts, as it shows them itself."""

from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from model.errors import InputError

Specials = tuple[tuple[int, int], ...]
"""(id, type id) of tokens that stand one behind the other."""


@dataclass(frozen=True, slots=True)
class Frame:
    """``prefix text_a suffix``, or ``prefix text_a middle text_b suffix``.

    Of more texts each further one is another second text, with the middle before it.
    """

    prefix: Specials
    middle: Specials
    suffix: Specials
    type_a: int
    type_b: int
    texts: int = 2
    """Of a row."""

    def __len__(self) -> int:
        between = len(self.middle) * max(1, self.texts - 1)
        return len(self.prefix) + between + len(self.suffix)

    def before(self, place: int) -> Specials:
        """What stands before text number ``place`` (0-based)."""
        if place == 0:
            return self.prefix
        if place == 1:
            return self.middle
        return tuple((token, self.type_b) for token, _ in self.middle)

    def type_of(self, place: int) -> int:
        return self.type_b if place else self.type_a

    @property
    def blank(self) -> "Frame":
        """As long, with -1 for every token."""
        prefix, middle, suffix = (
            ((-1, 0),) * len(part) for part in (self.prefix, self.middle, self.suffix)
        )
        return replace(self, prefix=prefix, middle=middle, suffix=suffix)


def probe_frame(tokenizer: Tokenizer, *, texts: int = 1) -> Frame:
    """Learn the frame of rows of so many texts from the tokenizer's own post-processor.

    No post-processor knows more than two texts; those after the second are taken for more of it.
    Raises `InputError` ``bad_tokenizer`` when it gives no word piece for any of a few texts.
    """
    pair = texts > 1
    wanted = {0, 1} if pair else {0}
    for text in ("a", "the", "0", "?"):
        encoded = tokenizer.encode(text, text if pair else None)
        side = encoded.sequence_ids  # 0 or 1 for the texts' tokens, None for special tokens
        if wanted <= set(side):
            break
    else:
        raise InputError("bad_tokenizer", "The tokenizer makes no token of 'a'.", ("model",))
    tokens = list(zip(encoded.ids, encoded.type_ids, strict=True))
    first_a, end_a = _span(side, 0)
    first_b, end_b = _span(side, 1) if pair else (end_a, end_a)
    return Frame(
        prefix=tuple(tokens[:first_a]),
        middle=tuple(tokens[end_a:first_b]),
        suffix=tuple(tokens[end_b:]),
        type_a=encoded.type_ids[first_a],
        type_b=encoded.type_ids[first_b] if pair else 0,
        texts=texts,
    )


def _span(side: list[int | None], which: int) -> tuple[int, int]:
    return side.index(which), len(side) - side[::-1].index(which)

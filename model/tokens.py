"""Texts as word pieces: tokenized once, then cut to any sequence length without a tokenizer.

A study tries many values of ``max_length`` on the same texts, so the costly part (`tokenize`) is
kept apart from the cheap one (`TokenTable.fit`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from model.config import Cut
from model.dataset_summary import quantiles
from model.errors import InputError
from model.tokenizer_files import load_tokenizer

__all__ = [
    "Frame",
    "Ragged",
    "Sequences",
    "TokenTable",
    "lengths_summary",
    "load_tokenizer",
    "probe_frame",
    "tokenize",
    "tokenize_words",
    "unknown_share",
    "unknown_warnings",
]

Ids = np.ndarray[tuple[int], np.dtype[np.int32]]
TypeIds = np.ndarray[tuple[int], np.dtype[np.uint8]]
Lengths = np.ndarray[tuple[int], np.dtype[np.int64]]

MANY_UNKNOWN = 0.05
"""More unknown word pieces than this mean a vocabulary of another language or script."""

OnTexts = Callable[[int, int], None]
"""``progress(done, total)`` counts texts."""

_CHUNK_TEXTS = 4096
_BLOCK_ROWS = 8192
"""Rows that `TokenTable.fit` copies at once; bounds its index arrays."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens a tokenizer puts around texts, as (id, type id) pairs.

    ``prefix text_a suffix``, or ``prefix text_a middle text_b suffix``.
    """

    prefix: tuple[tuple[int, int], ...]
    middle: tuple[tuple[int, int], ...]
    suffix: tuple[tuple[int, int], ...]
    type_a: int
    type_b: int

    def __len__(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    @property
    def blank(self) -> "Frame":
        """As long, with -1 for every token."""
        prefix, middle, suffix = (
            ((-1, 0),) * len(part) for part in (self.prefix, self.middle, self.suffix)
        )
        return Frame(prefix, middle, suffix, self.type_a, self.type_b)


def probe_frame(tokenizer: Tokenizer, *, pair: bool) -> Frame:
    """Learn the frame from what the tokenizer's own post-processor does to a short text.

    Raises `InputError` ``bad_tokenizer`` when it gives no word piece for any of a few texts.
    """
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
    )


def _span(side: list[int | None], which: int) -> tuple[int, int]:
    return side.index(which), len(side) - side[::-1].index(which)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of different lengths in one array: row i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: Ids
    offsets: Lengths

    @property
    def lengths(self) -> Lengths:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.offsets.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Rows ready for a model, special tokens included, unpadded and flat."""

    ids: Ids
    type_ids: TypeIds
    offsets: Lengths
    """[rows + 1]; row i stands at ``offsets[i]:offsets[i + 1]``."""
    truncated_rows: int
    lost_tokens: int
    """Word pieces cut off, over all rows."""
    begins: Ids | None = None
    """[tokens] which of its row's words begins there, -1 where none; None: no words were given."""

    @property
    def lengths(self) -> Lengths:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """Tokenized rows in full length, without special tokens."""

    text_a: Ragged
    text_b: Ragged | None
    frame: Frame
    unknown_id: int | None
    begins: Ragged | None = None
    """Beside ``text_a``: which word begins at a piece, -1 where none; of rows given as words."""

    def __len__(self) -> int:
        return len(self.text_a.offsets) - 1

    @property
    def nbytes(self) -> int:
        return self.text_a.nbytes + (0 if self.text_b is None else self.text_b.nbytes)

    @property
    def pieces(self) -> int:
        """Word pieces of all rows."""
        return len(self.text_a.ids) + (0 if self.text_b is None else len(self.text_b.ids))

    @property
    def lengths(self) -> Lengths:
        """Length of every row with its special tokens, untruncated."""
        second = 0 if self.text_b is None else self.text_b.lengths
        return self.text_a.lengths + second + len(self.frame)

    def fit(self, max_length: int, truncation: Cut = "head") -> Sequences:
        """Add the special tokens and cut every row to ``max_length`` tokens, these included.

        ``head`` keeps the start of a text, ``tail`` its end, ``head_tail`` half of each (the
        start gets the odd one; Sun et al. 2019, "How to Fine-Tune BERT for Text
        Classification?"). Of a pair the longer text is cut first. Raises `InputError` as `kept`.
        """
        keep_a, keep_b = self.kept(max_length)
        offsets = starts(keep_a + keep_b + len(self.frame))
        ids = np.empty(offsets[-1], dtype=np.int32)
        type_ids = np.empty(offsets[-1], dtype=np.uint8)
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(self)))
            layout = _Layout(ids, type_ids, offsets[:-1][block].copy(), block, truncation)
            layout.put(self.frame.prefix)
            layout.copy(self.text_a, keep_a[block], self.frame.type_a)
            layout.put(self.frame.middle)
            if self.text_b is not None:
                layout.copy(self.text_b, keep_b[block], self.frame.type_b)
            layout.put(self.frame.suffix)
        lost = self.lengths - np.diff(offsets)
        begins = None
        if self.begins is not None:  # laid out as the pieces are
            table = replace(self, text_a=self.begins, begins=None, frame=self.frame.blank)
            begins = table.fit(max_length, truncation).ids
        cut = int(np.count_nonzero(lost)), int(lost.sum())
        return Sequences(ids, type_ids, offsets, *cut, begins)

    def kept(self, max_length: int) -> tuple[Lengths, Lengths]:
        """Return how many pieces of each text stay, the longer text cut first.

        Raises `InputError` ``invalid_value`` when the special tokens alone fill ``max_length``.
        """
        room = max_length - len(self.frame)
        if room < 1:
            detail = (
                f"max_length {max_length} leaves no room beside {len(self.frame)} special ones."
            )
            raise InputError("invalid_value", detail, ("max_length",))
        n_a = self.text_a.lengths
        if self.text_b is None:
            return np.minimum(n_a, room), np.zeros_like(n_a)
        n_b = self.text_b.lengths
        over = n_a + n_b > room
        short = np.minimum(np.minimum(n_a, n_b), np.where(over, room // 2, room))
        long = np.where(over, room - short, np.maximum(n_a, n_b))
        return np.where(n_a > n_b, long, short), np.where(n_a > n_b, short, long)


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Lays the parts of the rows in ``block`` one behind the other into the flat arrays."""

    ids: Ids
    type_ids: TypeIds
    at: Lengths
    """Where each row's next part goes; moves as parts are laid."""
    block: slice
    truncation: Cut

    def put(self, special: tuple[tuple[int, int], ...]) -> None:
        for token, type_id in special:
            self.ids[self.at] = token
            self.type_ids[self.at] = type_id
            self.at[:] += 1

    def copy(self, text: Ragged, keep: Lengths, type_id: int) -> None:
        """Copy ``keep`` pieces of each row, from the ends that the truncation keeps."""
        first, end = text.offsets[:-1][self.block], text.offsets[1:][self.block]
        head = {"head": keep, "tail": 0 * keep, "head_tail": keep - keep // 2}[self.truncation]
        rank = np.arange(keep.sum()) - np.repeat(starts(keep)[:-1], keep)  # place in its text
        in_head = rank < np.repeat(head, keep)
        source = rank + np.where(in_head, np.repeat(first, keep), np.repeat(end - keep, keep))
        target = rank + np.repeat(self.at, keep)
        self.ids[target] = text.ids[source]
        self.type_ids[target] = type_id
        self.at[:] += keep


def starts(lengths: Lengths) -> Lengths:
    """Return the [rows + 1] offsets of rows of these lengths laid end to end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def tokenize(
    tokenizer: Tokenizer,
    text_a: Sequence[str],
    text_b: Sequence[str] | None = None,
    *,
    progress: OnTexts | None = None,
) -> TokenTable:
    """Encode every text once; ``progress(done, total)`` counts texts, both of a pair.

    The tokenizer must not truncate or pad, as `load_tokenizer` leaves it (else `ValueError`).
    """
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise ValueError("the tokenizer truncates or pads; load it with load_tokenizer")
    if text_b is not None and len(text_b) != len(text_a):
        raise ValueError(f"{len(text_a)} first texts but {len(text_b)} second texts")
    total = len(text_a) + len(text_b or ())
    unknown = getattr(tokenizer.model, "unk_token", None) or "<unk>"  # unigram models name none
    return TokenTable(
        text_a=_encode(tokenizer, text_a, 0, total, progress),
        text_b=None if text_b is None else _encode(tokenizer, text_b, len(text_a), total, progress),
        frame=probe_frame(tokenizer, pair=text_b is not None),
        unknown_id=tokenizer.token_to_id(unknown),
    )


def tokenize_words(
    tokenizer: Tokenizer, rows: Sequence[Sequence[str]], *, progress: OnTexts | None = None
) -> TokenTable:
    """Encode texts that come as words, and note at which pieces these begin.

    A word may have no piece. The tokenizer must not truncate or pad.
    """
    pieces = [np.empty(0, dtype=np.int32)]
    begins = [np.empty(0, dtype=np.int32)]
    for start in range(0, len(rows), _CHUNK_TEXTS):
        chunk = [list(row) for row in rows[start : start + _CHUNK_TEXTS]]
        for found in tokenizer.encode_batch(chunk, is_pretokenized=True, add_special_tokens=False):
            words = np.array(found.word_ids, dtype=np.int32)
            same = np.concatenate([[False], words[1:] == words[:-1]])[: len(words)]
            pieces.append(np.array(found.ids, dtype=np.int32))
            begins.append(np.where(same, np.int32(-1), words))
        if progress is not None:
            progress(start + len(chunk), len(rows))
    offsets = starts(np.array([len(row) for row in pieces[1:]], dtype=np.int64))
    plain = tokenize(tokenizer, [])
    return replace(
        plain,
        text_a=Ragged(np.concatenate(pieces), offsets),
        begins=Ragged(np.concatenate(begins), offsets),
    )


def _encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    done: int,
    total: int,
    progress: OnTexts | None,
) -> Ragged:
    parts = [np.empty(0, dtype=np.int32)]
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        chunk = list(texts[start : start + _CHUNK_TEXTS])
        rows = [e.ids for e in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
        lengths.extend(map(len, rows))
        parts.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        if progress is not None:
            progress(done + start + len(chunk), total)
    return Ragged(np.concatenate(parts), starts(np.asarray(lengths, dtype=np.int64)))


def lengths_summary(table: TokenTable) -> dict[str, int]:
    """Return p50, p90, p95, p99 and max of the row lengths, special tokens included."""
    return quantiles(table.lengths)


def unknown_share(table: TokenTable) -> float:
    """Return the share of word pieces that the vocabulary does not know."""
    texts = [table.text_a] + ([] if table.text_b is None else [table.text_b])
    pieces = sum(len(text.ids) for text in texts)
    if table.unknown_id is None or pieces == 0:
        return 0.0
    return sum(int((text.ids == table.unknown_id).sum()) for text in texts) / pieces


def unknown_warnings(share: float) -> list[str]:
    """A sentence where a vocabulary does not know more than `MANY_UNKNOWN` of the word pieces."""
    if share <= MANY_UNKNOWN:
        return []
    return [
        f"The model's vocabulary does not know {share:.1%} of the word pieces; is it a model for "
        "texts in another language?"
    ]

"""Texts as word pieces: tokenized once, then cut to any sequence length without a tokenizer.

A study tries many values of ``max_length`` on the same texts, so the costly part (`tokenize`) is
kept apart from the cheap one (`TokenTable.fit`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from model.config import Cut
from model.dataset_summary import quantiles
from model.errors import InputError
from model.frame import Frame, probe_frame
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
    more: tuple[Ragged, ...] = ()
    """The third text and those after it, of rows of more than two."""
    single: Frame | None = None
    """Of several texts: what stands around one of them alone."""

    def __len__(self) -> int:
        return len(self.text_a.offsets) - 1

    @property
    def texts(self) -> tuple[Ragged, ...]:
        """All texts of the rows, column by column."""
        return (self.text_a, *(() if self.text_b is None else (self.text_b,)), *self.more)

    @property
    def nbytes(self) -> int:
        return sum(text.nbytes for text in self.texts)

    @property
    def pieces(self) -> int:
        """Word pieces of all rows."""
        return sum(len(text.ids) for text in self.texts)

    @property
    def lengths(self) -> Lengths:
        """Length of every row with its special tokens, untruncated."""
        whole: Lengths = np.sum([text.lengths for text in self.texts], axis=0)
        return whole + len(self.frame)

    def with_texts(self, texts: Sequence[Ragged]) -> "TokenTable":
        """The same rows with these texts in the place of `texts`."""
        second = texts[1] if len(texts) > 1 else None
        return replace(self, text_a=texts[0], text_b=second, more=tuple(texts[2:]))

    def fit(self, max_length: int, truncation: Cut = "head") -> Sequences:
        """Add the special tokens and cut every row to ``max_length`` tokens, these included.

        ``head`` keeps the start of a text, ``tail`` its end, ``head_tail`` half of each (the
        start gets the odd one; Sun et al. 2019, "How to Fine-Tune BERT for Text
        Classification?"). Of several texts the longest is cut first. Raises `InputError` as `kept`.
        """
        keep = self.kept(max_length)
        offsets = starts(keep.sum(axis=0) + len(self.frame))
        ids = np.empty(offsets[-1], dtype=np.int32)
        type_ids = np.empty(offsets[-1], dtype=np.uint8)
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(self)))
            layout = _Layout(ids, type_ids, offsets[:-1][block].copy(), block, truncation)
            for place, text in enumerate(self.texts):
                layout.put(self.frame.before(place))
                layout.copy(text, keep[place, block], self.frame.type_of(place))
            layout.put(self.frame.suffix)
        lost = self.lengths - np.diff(offsets)
        begins = None
        if self.begins is not None:  # laid out as the pieces are
            table = replace(self, text_a=self.begins, begins=None, frame=self.frame.blank)
            begins = table.fit(max_length, truncation).ids
        cut = int(np.count_nonzero(lost)), int(lost.sum())
        return Sequences(ids, type_ids, offsets, *cut, begins)

    def kept(self, max_length: int) -> npt.NDArray[np.int64]:
        """Return how many pieces of each text stay, [texts of a row, rows].

        What is too long is cut at the longest text until that is no longer than the next one, then
        at both, and so on; of texts that end up alike the later ones keep the odd pieces. Raises
        `InputError` ``invalid_value`` when the special tokens alone fill ``max_length``.
        """
        room = max_length - len(self.frame)
        if room < 1:
            detail = (
                f"max_length {max_length} leaves no room beside {len(self.frame)} special ones."
            )
            raise InputError("invalid_value", detail, ("max_length",))
        lengths = np.stack([text.lengths for text in self.texts])
        order = np.argsort(lengths, axis=0, kind="stable")
        left = np.full(len(self), room, dtype=np.int64)
        keep = np.empty_like(lengths)
        for rank, place in enumerate(order):  # from the shortest text of every row
            fair = left // (len(order) - rank)
            stays = np.minimum(np.take_along_axis(lengths, place[None], axis=0)[0], fair)
            np.put_along_axis(keep, place[None], stays[None], axis=0)
            left -= stays
        return keep


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
    *more: Sequence[str],
    progress: OnTexts | None = None,
) -> TokenTable:
    """Encode every text once; ``progress(done, total)`` counts texts, all those of a row.

    The tokenizer must not truncate or pad, as `load_tokenizer` leaves it (else `ValueError`).
    """
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise ValueError("the tokenizer truncates or pads; load it with load_tokenizer")
    columns = [text_a, *(() if text_b is None else (text_b,)), *more]
    for others in columns[1:]:
        if len(others) != len(text_a):
            raise ValueError(f"{len(text_a)} first texts but {len(others)} second texts")
    total = len(text_a) * len(columns)
    found = [
        _encode(tokenizer, texts, place * len(text_a), total, progress)
        for place, texts in enumerate(columns)
    ]
    unknown = getattr(tokenizer.model, "unk_token", None) or "<unk>"  # unigram models name none
    several = len(columns) > 1
    return TokenTable(
        text_a=found[0],
        text_b=found[1] if several else None,
        frame=probe_frame(tokenizer, texts=len(columns)),
        unknown_id=tokenizer.token_to_id(unknown),
        more=tuple(found[2:]),
        single=probe_frame(tokenizer) if several else None,
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
    if table.unknown_id is None or table.pieces == 0:
        return 0.0
    unknown = sum(int((text.ids == table.unknown_id).sum()) for text in table.texts)
    return unknown / table.pieces


def unknown_warnings(share: float) -> list[str]:
    """A sentence where a vocabulary does not know more than `MANY_UNKNOWN` of the word pieces."""
    if share <= MANY_UNKNOWN:
        return []
    return [
        f"The model's vocabulary does not know {share:.1%} of the word pieces; is it a model for "
        "texts in another language?"
    ]

"""Texts as word pieces: tokenized once, then cut to any sequence length without a tokenizer.

A study tries many values of ``max_length`` on the same texts, so the costly part (`tokenize`) is
kept apart from the cheap one (`TokenTable.fit`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from model.config import Truncation
from model.dataset_summary import quantiles
from model.errors import InputError
from model.vocabulary import bert_tokenizer

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_CHUNK_TEXTS = 4096
_BLOCK_ROWS = 65536
"""Rows that `TokenTable.fit` copies at once; bounds its index arrays."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder, without truncation or padding.

    Reads ``tokenizer.json``, else BERT's ``vocab.txt``, else RoBERTa's ``vocab.json`` and
    ``merges.txt``. Raises `InputError` ``no_tokenizer`` or ``bad_tokenizer``.
    """
    try:
        tokenizer = _load(folder)
    except InputError:
        raise
    # tokenizers raises bare Exception for files it cannot parse
    except Exception as error:
        detail = f"The tokenizer files in {folder} cannot be read: {error}"
        raise InputError("bad_tokenizer", detail, ("model",)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.txt").is_file():
        return _load_wordpiece(folder)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _load_byte_level(folder)
    detail = f"{folder} has no tokenizer.json, no vocab.txt, and no vocab.json with merges.txt."
    raise InputError("no_tokenizer", detail, ("model",))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return config


def _load_wordpiece(folder: Path) -> Tokenizer:
    config = _tokenizer_config(folder)
    normalizer = BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    return bert_tokenizer(WordPiece.read_file(str(folder / "vocab.txt")), normalizer)


def _load_byte_level(folder: Path) -> Tokenizer:
    vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    prefix_space = _tokenizer_config(folder).get("add_prefix_space", False)
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.post_processor = RobertaProcessing(
        sep=("</s>", vocab["</s>"]), cls=("<s>", vocab["<s>"]), add_prefix_space=prefix_space
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        + [AddedToken("<mask>", lstrip=True, special=True)]
    )
    return tokenizer


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens that a tokenizer puts around one text or two.

    ``prefix text_a suffix``, or ``prefix text_a middle text_b suffix``; each part has ids and
    the type id of every position.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    prefix_types: tuple[int, ...]
    middle_types: tuple[int, ...]
    suffix_types: tuple[int, ...]
    type_a: int
    type_b: int

    def __len__(self) -> int:
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def probe_frame(tokenizer: Tokenizer, *, pair: bool) -> Frame:
    """Learn the frame from what the tokenizer's own post-processor does to a short text."""
    encoded = next(e for e in map(tokenizer.encode, ("a", "the", "0", "?")) if _texts(e))
    if pair:
        word = tokenizer.decode(encoded.ids) or "a"
        encoded = next(
            e
            for e in (tokenizer.encode(text, text) for text in (word, "a", "the", "0", "?"))
            if set(_texts(e)) == {0, 1}
        )
    side = encoded.sequence_ids  # None for special tokens, else 0 or 1
    ids, types = encoded.ids, encoded.type_ids
    first_a, end_a = side.index(0), len(side) - side[::-1].index(0)
    first_b = side.index(1) if pair else end_a
    end_b = len(side) - side[::-1].index(1) if pair else end_a
    return Frame(
        prefix=tuple(ids[:first_a]),
        middle=tuple(ids[end_a:first_b]),
        suffix=tuple(ids[end_b:]),
        prefix_types=tuple(types[:first_a]),
        middle_types=tuple(types[end_a:first_b]),
        suffix_types=tuple(types[end_b:]),
        type_a=types[first_a],
        type_b=types[first_b] if pair else 0,
    )


def _texts(encoding: Encoding) -> list[int]:
    return [side for side in encoding.sequence_ids if side is not None]


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of different lengths in one array: row i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: np.ndarray[tuple[int], np.dtype[np.int32]]
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.offsets.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Rows ready for a model, special tokens included, unpadded and flat."""

    ids: np.ndarray[tuple[int], np.dtype[np.int32]]
    type_ids: np.ndarray[tuple[int], np.dtype[np.uint8]]
    offsets: Ints
    """[rows + 1]; row i stands at ``offsets[i]:offsets[i + 1]``."""
    truncated_rows: int
    lost_tokens: int
    """Word pieces cut off, over all rows."""

    @property
    def lengths(self) -> Ints:
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

    def __len__(self) -> int:
        return len(self.text_a.offsets) - 1

    @property
    def nbytes(self) -> int:
        return self.text_a.nbytes + (0 if self.text_b is None else self.text_b.nbytes)

    @property
    def lengths(self) -> Ints:
        """Length of every row with its special tokens, untruncated."""
        pair = 0 if self.text_b is None else self.text_b.lengths
        return self.text_a.lengths + pair + len(self.frame)

    def fit(self, max_length: int, truncation: Truncation = "head") -> Sequences:
        """Add the special tokens and cut every row to ``max_length`` of them and text together.

        ``head`` keeps the start of a text, ``tail`` its end, ``head_tail`` half of each (the
        start gets the odd one; Sun et al. 2019, "How to Fine-Tune BERT for Text
        Classification?"). Of a pair the longer text is cut first. Raises `InputError`
        ``invalid_value`` when the special tokens alone fill ``max_length``.
        """
        room = max_length - len(self.frame)
        if room < 1:
            detail = (
                f"max_length {max_length} leaves no room beside {len(self.frame)} special tokens."
            )
            raise InputError("invalid_value", detail, ("max_length",))
        keep_a, keep_b = self._kept(room)
        offsets = _starts(keep_a + keep_b + len(self.frame))
        ids = np.empty(offsets[-1], dtype=np.int32)
        type_ids = np.empty(offsets[-1], dtype=np.uint8)
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(self)))
            self._fill(ids, type_ids, offsets, keep_a, keep_b, block, truncation)
        lost = self.lengths - np.diff(offsets)
        return Sequences(ids, type_ids, offsets, int(np.count_nonzero(lost)), int(lost.sum()))

    def _kept(self, room: int) -> tuple[Ints, Ints]:
        """Return how many pieces of each text stay, longest text cut first."""
        n_a = self.text_a.lengths
        if self.text_b is None:
            return np.minimum(n_a, room), np.zeros_like(n_a)
        n_b = self.text_b.lengths
        short, long = np.minimum(n_a, n_b), np.maximum(n_a, n_b)
        over = short + long > room
        both = over & (short > room // 2)
        short = np.where(both, room // 2, short)
        long = np.where(over, room - short, long)
        a_is_longer = n_a > n_b
        return np.where(a_is_longer, long, short), np.where(a_is_longer, short, long)

    def _fill(
        self,
        ids: np.ndarray[tuple[int], np.dtype[np.int32]],
        type_ids: np.ndarray[tuple[int], np.dtype[np.uint8]],
        offsets: Ints,
        keep_a: Ints,
        keep_b: Ints,
        block: slice,
        truncation: Truncation,
    ) -> None:
        """Lay the parts of the rows in ``block`` one after the other into the flat arrays."""
        frame = self.frame
        at = offsets[:-1][block].copy()
        self._put(ids, type_ids, at, frame.prefix, frame.prefix_types)
        at += len(frame.prefix)
        _copy(self.text_a, block, keep_a[block], truncation, ids, type_ids, at, frame.type_a)
        at += keep_a[block]
        self._put(ids, type_ids, at, frame.middle, frame.middle_types)
        at += len(frame.middle)
        if self.text_b is not None:
            _copy(self.text_b, block, keep_b[block], truncation, ids, type_ids, at, frame.type_b)
            at += keep_b[block]
        self._put(ids, type_ids, at, frame.suffix, frame.suffix_types)

    @staticmethod
    def _put(
        ids: np.ndarray[tuple[int], np.dtype[np.int32]],
        type_ids: np.ndarray[tuple[int], np.dtype[np.uint8]],
        at: Ints,
        special: tuple[int, ...],
        types: tuple[int, ...],
    ) -> None:
        for k, (token, type_id) in enumerate(zip(special, types, strict=True)):
            ids[at + k] = token
            type_ids[at + k] = type_id


def _copy(
    text: Ragged,
    block: slice,
    keep: Ints,
    truncation: Truncation,
    ids: np.ndarray[tuple[int], np.dtype[np.int32]],
    type_ids: np.ndarray[tuple[int], np.dtype[np.uint8]],
    at: Ints,
    type_id: int,
) -> None:
    """Copy ``keep`` pieces of every row of ``block`` to the positions from ``at`` on."""
    first, end = text.offsets[:-1][block], text.offsets[1:][block]
    head = {"head": keep, "tail": np.zeros_like(keep), "head_tail": keep - keep // 2}[truncation]
    rank = np.arange(keep.sum()) - np.repeat(_starts(keep)[:-1], keep)  # place within its text
    # past the head, pieces are counted from the text's end
    source = np.where(
        rank < np.repeat(head, keep), np.repeat(first, keep), np.repeat(end - keep, keep)
    )
    target = np.repeat(at, keep) + rank
    ids[target] = text.ids[source + rank]
    type_ids[target] = type_id


def _starts(lengths: Ints) -> Ints:
    """Return [rows + 1] offsets of rows of these lengths laid end to end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def tokenize(
    tokenizer: Tokenizer,
    text_a: Sequence[str],
    text_b: Sequence[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TokenTable:
    """Encode every text once; ``progress(done, total)`` counts texts, both of a pair.

    The tokenizer must not truncate or pad, as `load_tokenizer` leaves it (else `ValueError`).
    """
    if tokenizer.truncation is not None or tokenizer.padding is not None:
        raise ValueError("the tokenizer truncates or pads; load it with load_tokenizer")
    if text_b is not None and len(text_b) != len(text_a):
        raise ValueError(f"{len(text_a)} first texts but {len(text_b)} second texts")
    total = len(text_a) + len(text_b or ())
    unknown = getattr(tokenizer.model, "unk_token", None)
    return TokenTable(
        text_a=_encode(tokenizer, text_a, 0, total, progress),
        text_b=None if text_b is None else _encode(tokenizer, text_b, len(text_a), total, progress),
        frame=probe_frame(tokenizer, pair=text_b is not None),
        unknown_id=None if unknown is None else tokenizer.token_to_id(unknown),
    )


def _encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    done: int,
    total: int,
    progress: Callable[[int, int], None] | None,
) -> Ragged:
    parts: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        chunk = list(texts[start : start + _CHUNK_TEXTS])
        rows = [e.ids for e in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
        lengths.extend(map(len, rows))
        parts.append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        if progress is not None:
            progress(done + start + len(chunk), total)
    flat = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return Ragged(flat, _starts(np.asarray(lengths, dtype=np.int64)))


def lengths_summary(table: TokenTable) -> dict[str, int]:
    """Return p50, p90, p95, p99 and max of the row lengths, special tokens included."""
    return quantiles(table.lengths)


def truncated_share(table: TokenTable, max_length: int) -> float:
    """Return the share of rows that ``max_length`` would cut."""
    return float(np.mean(table.lengths > max_length))


def unknown_share(table: TokenTable) -> float:
    """Return the share of word pieces that the vocabulary does not know."""
    texts = [table.text_a] + ([] if table.text_b is None else [table.text_b])
    pieces = sum(len(text.ids) for text in texts)
    if table.unknown_id is None or pieces == 0:
        return 0.0
    return sum(int((text.ids == table.unknown_id).sum()) for text in texts) / pieces

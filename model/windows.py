"""Texts that are longer than a model reads, as windows that slide over them.

Every window is a row of its own to the network; what it says of a text's windows is pooled to one
row of logits per text. So everything around it (batches, losses, figures) counts texts.
"""

from dataclasses import dataclass

import numpy as np

from model.config import TrainConfig, WindowPooling
from model.tokens import Ids, Lengths, Ragged, Sequences, TokenTable, starts

_BLOCK_WINDOWS = 8192
"""Windows that are copied at once; bounds the index arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Texts of one window or more, as a model reads them."""

    rows: Sequences
    """A row per window, those of a text one behind the other."""
    offsets: Lengths
    """[texts + 1]; the windows of text i are the rows ``offsets[i]:offsets[i + 1]``."""
    pooling: WindowPooling
    truncated_rows: int
    """Texts that are not read to their end."""
    lost_tokens: int

    @property
    def ids(self) -> Ids:
        return self.rows.ids

    @property
    def lengths(self) -> Lengths:
        """[texts] tokens over all windows: what a text costs."""
        return np.add.reduceat(self.rows.lengths, self.offsets[:-1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def counts(self, texts: Lengths) -> Lengths:
        """[texts] windows of each."""
        return np.diff(self.offsets)[texts]

    def of(self, texts: Lengths) -> Lengths:
        """The windows of ``texts``, text by text."""
        counts = self.counts(texts)
        first = np.repeat(self.offsets[texts] - starts(counts)[:-1], counts)
        return first + np.arange(counts.sum())


def read_texts(table: TokenTable, config: TrainConfig) -> Sequences | Windows:
    """The texts as `truncation` says: cut to ``max_length``, or in windows of that length.

    Raises `InputError` as `TokenTable.kept`.
    """
    if config.truncation != "windows":
        return table.fit(config.max_length, config.truncation)
    plan = _plan(table, config)
    row = np.repeat(np.arange(len(table)), plan.counts)
    place = np.arange(len(row)) - np.repeat(starts(plan.counts)[:-1], plan.counts)
    begin = np.minimum(place * plan.step[row], (plan.whole - plan.size)[row])
    second = plan.second[row]
    windows = TokenTable(
        text_a=_slices(table.text_a, row, np.where(second, 0, begin), plan.keep_a[row]),
        text_b=None
        if table.text_b is None
        else _slices(table.text_b, row, np.where(second, begin, 0), plan.keep_b[row]),
        frame=table.frame,
        unknown_id=table.unknown_id,
    )
    return Windows(
        windows.fit(config.max_length),
        starts(plan.counts),
        config.window_pooling,
        truncated_rows=int(np.count_nonzero(plan.lost)),
        lost_tokens=int(plan.lost.sum()),
    )


def lost_pieces(table: TokenTable, config: TrainConfig) -> Lengths:
    """[texts] word pieces that are not read. Raises `InputError` as `TokenTable.kept`."""
    if config.truncation == "windows":
        return _plan(table, config).lost
    keep_a, keep_b = table.kept(config.max_length)
    return table.lengths - len(table.frame) - keep_a - keep_b


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """How windows move over texts; all arrays are [texts].

    Of a pair the longer text has windows and the other one, cut to half of the room where it is
    as long as that, stands in each of them. The last window ends with the text.
    """

    second: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """Whether it is the second text that has windows."""
    keep_a: Lengths
    keep_b: Lengths
    """Pieces of each text in a window."""
    whole: Lengths
    size: Lengths
    """Pieces of the text that has windows: of all of it, and of a window."""
    step: Lengths
    counts: Lengths
    lost: Lengths


def _plan(table: TokenTable, config: TrainConfig) -> _Plan:
    keep_a, keep_b = table.kept(config.max_length)
    n_a = table.text_a.lengths
    n_b = np.zeros_like(n_a) if table.text_b is None else table.text_b.lengths
    second = n_b > n_a
    whole, size = np.maximum(n_a, n_b), np.where(second, keep_b, keep_a)
    step = np.maximum(1, (size * config.window_stride).astype(np.int64))
    counts = np.minimum(1 - (size - whole) // step, config.max_windows)
    read = np.minimum((counts - 1) * step + size, whole)
    lost = n_a + n_b - (keep_a + keep_b - size) - read
    return _Plan(second, keep_a, keep_b, whole, size, step, counts, lost)


def _slices(text: Ragged, row: Lengths, begin: Lengths, keep: Lengths) -> Ragged:
    """``keep`` pieces of the texts in ``row``, each from ``begin`` on."""
    offsets = starts(keep)
    ids = np.empty(offsets[-1], dtype=text.ids.dtype)
    for start in range(0, len(row), _BLOCK_WINDOWS):
        block = slice(start, start + _BLOCK_WINDOWS)
        pieces, to = keep[block], offsets[start]
        first = text.offsets[:-1][row[block]] + begin[block]
        source = np.repeat(first - starts(pieces)[:-1], pieces) + np.arange(pieces.sum())
        ids[to : to + len(source)] = text.ids[source]
    return Ragged(ids, offsets)

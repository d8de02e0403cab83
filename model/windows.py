"""Texts that are longer than a model reads, as windows that slide over them, and rows of several
text columns that are encoded apart.

Every window is a row of its own to the network; what it says of a text's windows is pooled to one
row of logits per text, and likewise what it says of a row's columns. So everything around it
(batches, losses, figures) counts rows of the data.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.config import LogitPooling, TrainConfig
from model.tokens import Ids, Lengths, Ragged, Sequences, TokenTable, starts

_BLOCK_WINDOWS = 8192
"""Windows that are copied at once; bounds the index arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Texts of one window or more, as a model reads them; or rows of one text or more, each of
    which may have windows of its own: then "text" below is a row, and "window" a text of it."""

    rows: "Sequences | Windows"
    """A row per window, those of a text one behind the other."""
    offsets: Lengths
    """[texts + 1]; the windows of text i are the rows ``offsets[i]:offsets[i + 1]``."""
    pooling: LogitPooling
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
    """The texts as `columns` and `truncation` say: several of a row in one sequence or apart, cut
    to ``max_length`` or in windows of that length.

    Raises `InputError` as `TokenTable.kept`.
    """
    if not _apart(table, config):
        return _read(table, config)
    parts, offsets = _parts(table)
    lost = np.add.reduceat(_lost(parts, config), offsets[:-1])
    return Windows(
        _read(parts, config),
        offsets,
        config.column_pooling,
        truncated_rows=int(np.count_nonzero(lost)),
        lost_tokens=int(lost.sum()),
    )


def lost_pieces(table: TokenTable, config: TrainConfig) -> Lengths:
    """[rows] word pieces that are not read. Raises `InputError` as `TokenTable.kept`."""
    if not _apart(table, config):
        return _lost(table, config)
    parts, offsets = _parts(table)
    lost: Lengths = np.add.reduceat(_lost(parts, config), offsets[:-1])
    return lost


def _apart(table: TokenTable, config: TrainConfig) -> bool:
    return config.columns == "apart" and len(table.texts) > 1 and len(table) > 0


def _parts(table: TokenTable) -> tuple[TokenTable, Lengths]:
    """Every text of a row as a row of its own, and [rows + 1] where those of each row begin.

    An empty text is left out, so that it does not dilute the others; of a row without any piece the
    first one stays.
    """
    assert table.single is not None
    lengths = np.stack([text.lengths for text in table.texts], axis=1)
    filled = lengths > 0
    filled[:, 0] |= ~filled.any(axis=1)
    row, column = np.nonzero(filled)
    stacked = Ragged(
        np.concatenate([text.ids for text in table.texts]),
        starts(lengths.T.ravel()),
    )
    order = column * len(table) + row
    texts = _slices(stacked, order, np.zeros_like(order), lengths[row, column])
    return TokenTable(texts, None, table.single, table.unknown_id), starts(filled.sum(axis=1))


def _read(table: TokenTable, config: TrainConfig) -> Sequences | Windows:
    if config.truncation != "windows":
        return table.fit(config.max_length, config.truncation)
    plan = _plan(table, config)
    row = np.repeat(np.arange(len(table)), plan.counts)
    place = np.arange(len(row)) - np.repeat(starts(plan.counts)[:-1], plan.counts)
    begin = np.minimum(place * plan.step[row], (plan.whole - plan.size)[row])
    sliding = plan.sliding[row]
    windows = table.with_texts(
        [
            _slices(text, row, np.where(sliding == column, begin, 0), plan.keep[column, row])
            for column, text in enumerate(table.texts)
        ]
    )
    return Windows(
        windows.fit(config.max_length),
        starts(plan.counts),
        config.window_pooling,
        truncated_rows=int(np.count_nonzero(plan.lost)),
        lost_tokens=int(plan.lost.sum()),
    )


def _lost(table: TokenTable, config: TrainConfig) -> Lengths:
    if config.truncation == "windows":
        return _plan(table, config).lost
    lost: Lengths = table.lengths - len(table.frame) - table.kept(config.max_length).sum(axis=0)
    return lost


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """How windows move over texts; all arrays are [rows] but ``keep``.

    Of several texts in one sequence the longest has windows, and the others, cut as in
    `TokenTable.kept`, stand in each of them. The last window ends with the text.
    """

    sliding: Lengths
    """Which text has windows."""
    keep: npt.NDArray[np.int64]
    """[texts of a row, rows] pieces of each text in a window."""
    whole: Lengths
    size: Lengths
    """Pieces of the text that has windows: of all of it, and of a window."""
    step: Lengths
    counts: Lengths
    lost: Lengths


def _plan(table: TokenTable, config: TrainConfig) -> _Plan:
    keep = table.kept(config.max_length)
    lengths = np.stack([text.lengths for text in table.texts])
    # The first of those that are equally long, but one that keeps a piece: a window has to move.
    sliding = np.where(keep > 0, lengths, -1).argmax(axis=0)
    whole, size = lengths.max(axis=0), np.take_along_axis(keep, sliding[None], axis=0)[0]
    step = np.maximum(1, (size * config.window_stride).astype(np.int64))
    counts = np.minimum(1 - (size - whole) // step, config.max_windows)
    read = np.minimum((counts - 1) * step + size, whole)
    lost = lengths.sum(axis=0) - (keep.sum(axis=0) - size) - read
    return _Plan(sliding, keep, whole, size, step, counts, lost)


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

"""Which rows stand in which batch, and what the network reads of them."""

import numpy as np
import pytest
import torch

from model.batches import collate, evaluation_batches, padded_width, training_batches
from model.tokens import Sequences

CPU = torch.device("cpu")


def sequences(*rows: list[int]) -> Sequences:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    return Sequences(ids, (ids % 2).astype(np.uint8), offsets, 0, 0)


def epoch(rows: int, batch_size: int, seed: int = 0) -> list[list[int]]:
    lengths = np.random.default_rng(9).integers(3, 60, rows)
    batches = training_batches(lengths, batch_size, np.random.default_rng(seed))
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 8), (8, 8), (100, 7), (700, 16), (515, 16)])
def test_an_epoch_draws_every_row_once_in_full_batches_and_one_rest(
    rows: int, batch_size: int
) -> None:
    batches = epoch(rows, batch_size)
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    full, rest = divmod(rows, batch_size)
    assert [len(batch) for batch in batches] == [batch_size] * full + [rest] * (rest > 0)


def test_the_order_hangs_on_the_seed_and_changes_from_epoch_to_epoch() -> None:
    assert epoch(200, 8, seed=1) == epoch(200, 8, seed=1)
    assert epoch(200, 8, seed=1) != epoch(200, 8, seed=2)
    generator, lengths = np.random.default_rng(0), np.full(200, 5)
    first, second = (training_batches(lengths, 8, generator) for _ in range(2))
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]


def test_grouping_by_length_saves_most_of_the_padding_but_keeps_batches_mixed() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 2000)
    batches = training_batches(lengths, 16, np.random.default_rng(0))
    padding = sum(int(lengths[b].max()) * len(b) - int(lengths[b].sum()) for b in batches)
    assert padding < 0.15 * lengths.sum()  # random batches waste about 0.75 here
    means = np.array([lengths[batch].mean() for batch in batches])
    # Neither ascending nor descending: a curriculum by length would bias the training.
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_a_batch_is_padded_to_its_own_longest_row() -> None:
    table = sequences([2, 7, 3], [2, 3], [2, 8, 8, 8, 3], [2, 9, 3])
    batch = collate(table, np.array([3, 1]), pad_id=1, max_width=10, device=CPU)
    ids, types, mask = batch.tolist()
    assert ids == [[2, 9, 3], [2, 3, 1]]
    assert types == [[0, 1, 1], [0, 1, 0]]
    assert mask == [[1, 1, 1], [1, 1, 0]]
    assert batch.dtype == torch.int64


def test_padding_past_the_last_row_of_the_table_reads_nothing_beyond_it() -> None:
    table = sequences([2, 5, 5, 3], [2, 3])
    batch = collate(table, np.array([0, 1]), pad_id=0, max_width=10, device=CPU)
    assert batch[0].tolist() == [[2, 5, 5, 3], [2, 3, 0, 0]]


def test_widths_of_a_card_are_few_and_waste_little() -> None:
    widths = [padded_width(longest) for longest in range(1, 513)]
    assert all(width >= longest for longest, width in enumerate(widths, start=1))
    assert sorted(set(widths)) == (
        [*range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64)]
    )


def test_evaluation_takes_the_longest_rows_first_within_its_budget_of_tokens() -> None:
    lengths = np.array([3, 10, 4, 9, 3, 3])
    batches = [batch.tolist() for batch in evaluation_batches(lengths, tokens=20)]
    assert batches == [[1, 3], [2, 0, 4, 5]]
    singles = [batch.tolist() for batch in evaluation_batches(lengths, tokens=20, rows=1)]
    assert singles == [[1], [3], [2], [0], [4], [5]]


def test_a_row_longer_than_the_budget_goes_alone() -> None:
    batches = [batch.tolist() for batch in evaluation_batches(np.array([30, 5]), tokens=20)]
    assert batches == [[0], [1]]

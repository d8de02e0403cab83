"""Word dropout and random swap: whole words, within their text, the same for the same epoch."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece

from model.augmentation import Augmentation, split_words, word_beginnings
from model.config import TrainConfig
from model.normalised_file import Examples
from model.tokens import Frame, Ragged, TokenTable
from model.training import TrainData, train

VOCABULARY = {"[UNK]": 0, "re": 1, "##fund": 2, "card": 3, "lost": 4, "##s": 5, "##": 6}
TOKENIZER = Tokenizer(WordPiece(VOCABULARY, unk_token="[UNK]"))
# refund cards lost | (empty) | lost refunds | ##s (a text that begins within a word)
TEXTS = Ragged(np.array([1, 2, 3, 5, 4, 4, 1, 2, 5, 5], dtype=np.int32), np.array([0, 5, 5, 9, 10]))
WORDS: list[list[tuple[int, ...]]] = [[(1, 2), (3, 5), (4,)], [], [(4,), (1, 2, 5)], [(5,)]]


def table(second: Ragged | None = None) -> TokenTable:
    return TokenTable(TEXTS, second, Frame((), (), (), 0, 0), 0)


def words_of(text: Ragged) -> list[list[tuple[int, ...]]]:
    found: list[list[tuple[int, ...]]] = []
    for start, end in zip(text.offsets, text.offsets[1:], strict=False):
        row: list[tuple[int, ...]] = []
        for piece in text.ids[start:end].tolist():
            if row and piece in (2, 5):
                row[-1] = (*row[-1], piece)
            else:
                row.append((piece,))
        found.append(row)
    return found


def changed(epoch: int = 0, **rates: float) -> TokenTable:
    config = TrainConfig(seed=7, **rates)  # type: ignore[arg-type]
    return Augmentation(config, TOKENIZER).of_epoch(table(), epoch)


def test_a_words_pieces_belong_together() -> None:
    begins = word_beginnings(TOKENIZER)
    assert begins.tolist() == [True, True, False, True, True, False, True]
    words = split_words(TEXTS, begins)
    assert words.size.tolist() == [2, 2, 1, 1, 3, 1]
    assert words.text.tolist() == [0, 0, 0, 2, 2, 3]
    assert words_of(words.laid_out(np.arange(6), rows=4)) == WORDS


def test_a_space_begins_a_word_where_the_vocabulary_marks_it() -> None:
    tokenizer = Tokenizer(BPE(vocab={"Ġthe": 0, "re": 1, "Ġ": 2}, merges=[]))
    assert word_beginnings(tokenizer).tolist() == [True, False, True]


def test_word_dropout_leaves_out_words_and_never_a_whole_text() -> None:
    seen: Counter[int] = Counter()
    for epoch in range(50):
        found = words_of(changed(epoch, word_dropout=0.5).text_a)
        for row, whole in zip(found, WORDS, strict=True):
            left = iter(whole)
            assert all(word in left for word in row)  # in their order
            assert bool(row) is bool(whole)
        seen.update(len(row) for row in found[:1])
    assert seen.keys() == {1, 2, 3}


def test_random_swap_keeps_every_word_in_its_text() -> None:
    orders = set()
    for epoch in range(50):
        found = words_of(changed(epoch, random_swap=0.7).text_a)
        assert [sorted(row) for row in found] == [sorted(row) for row in WORDS]
        orders.add(tuple(found[0]))
    assert len(orders) > 3


def test_an_epoch_changes_the_same_way_every_time_and_the_next_otherwise() -> None:
    def epochs() -> list[list[int]]:
        found = (changed(epoch, word_dropout=0.3, random_swap=0.3) for epoch in range(9))
        return [texts.text_a.ids.tolist() for texts in found]

    assert epochs() == epochs()
    assert len({tuple(ids) for ids in epochs()}) > 5


def test_rates_of_zero_leave_the_texts_as_they_are() -> None:
    whole = table(second=TEXTS)
    assert Augmentation(TrainConfig(), TOKENIZER).of_epoch(whole, 3) is whole


@pytest.mark.parametrize("truncation", ["head", "windows"])
def test_a_run_learns_from_changed_texts_and_is_scored_on_whole_ones(
    examples: Callable[[int, int], Examples], truncation: str
) -> None:
    data = TrainData(
        train=examples(24, 1),
        validation=examples(12, 2),
        labels=("login", "payment", "shipping"),
        dataset_key="few",
    )
    # Texts are cut hard, so that words behind the cut come forward when others are left out.
    config = TrainConfig(batch_size=8, max_length=6, epochs=2, precision="fp32", dropout=0.0)
    config = replace(config, truncation=truncation, learning_rate=1e-12)  # type: ignore[arg-type]
    plain, augmented = (
        train(tried, data, device=torch.device("cpu"), on_epoch=lambda report: "continue")
        for tried in (config, replace(config, word_dropout=0.5, random_swap=0.5))
    )
    assert plain.metrics["loss"] == pytest.approx(augmented.metrics["loss"], abs=1e-6)
    losses = [[e.metrics["train_loss"] for e in run.epochs] for run in (plain, augmented)]
    assert losses[0][0] == pytest.approx(losses[0][1], abs=1e-6)
    assert abs(losses[1][0] - losses[1][1]) > 1e-6
    assert plain.truncated_share == augmented.truncated_share

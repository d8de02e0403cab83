"""Texts changed a little in every epoch, so that a model learns less of them by heart.

Words are left out or trade places before the text is cut to its length; a word's pieces stay
together. Each epoch's changes follow from (seed, epoch) alone, so a run that goes on from a
checkpoint sees what one that ran through did. Wei & Zou 2019 ("EDA") measured both on small data
sets.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from model.config import TrainConfig
from model.tokens import Ids, Lengths, Ragged, TokenTable, starts

_SEED_WORD = 0xA06
"""Tells these draws from all others of a seed."""


class Augmentation:
    """Changes the train texts of a run; with both rates at 0 it leaves them as they are."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer) -> None:
        self.on = config.word_dropout > 0 or config.random_swap > 0
        self._config = config
        self._begins = word_beginnings(tokenizer) if self.on else None

    def of_epoch(self, table: TokenTable, epoch: int) -> TokenTable:
        """The texts as epoch number ``epoch`` (0-based) reads them."""
        if self._begins is None:
            return table
        generator = np.random.default_rng([_SEED_WORD, self._config.seed, epoch])
        return table.with_texts(
            [self._changed(text, self._begins, generator) for text in table.texts]
        )

    def _changed(
        self, text: Ragged, begins: npt.NDArray[np.bool_], generator: np.random.Generator
    ) -> Ragged:
        words = split_words(text, begins)
        order = _swapped(words.text, self._config.random_swap, generator)
        order = order[_kept(words.text[order], self._config.word_dropout, generator)]
        return words.laid_out(order, rows=len(text.offsets) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The words of texts, one behind the other."""

    pieces: Ids
    first: Lengths
    """[words] where each begins in ``pieces``."""
    size: Lengths
    """[words] pieces of each."""
    text: Lengths
    """[words] the text that each stands in, ascending."""

    def laid_out(self, order: Lengths, rows: int) -> Ragged:
        """The texts with the words in ``order``, which keeps every word in its text."""
        size = self.size[order]
        source = np.repeat(self.first[order] - starts(size)[:-1], size) + np.arange(size.sum())
        lengths = np.bincount(self.text[order], weights=size, minlength=rows).astype(np.int64)
        return Ragged(self.pieces[source], starts(lengths))


def split_words(text: Ragged, begins: npt.NDArray[np.bool_]) -> Words:
    """``begins`` says of every piece of the vocabulary whether a word begins with it."""
    at = begins[text.ids]
    filled = text.lengths > 0
    at[text.offsets[:-1][filled]] = True
    first = np.flatnonzero(at)
    size = np.diff(np.append(first, len(text.ids)))
    owner = np.searchsorted(text.offsets, first, side="right") - 1
    return Words(text.ids, first, size, owner)


def word_beginnings(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """[vocabulary] whether a piece begins a word, by the marks of WordPiece (``##`` goes on),
    byte-level BPE and SentencePiece (a space begins). Without marks every piece is a word."""
    vocabulary = tokenizer.get_vocab()
    begins = np.ones(max(vocabulary.values(), default=-1) + 1, dtype=np.bool_)
    goes_on = getattr(tokenizer.model, "continuing_subword_prefix", None) or "##"
    marked = any(piece[:1] in ("Ġ", "▁") for piece in vocabulary)
    for piece, index in vocabulary.items():
        if marked:
            begins[index] = piece[:1] in ("Ġ", "▁")
        else:
            begins[index] = not (piece.startswith(goes_on) and len(piece) > len(goes_on))
    return begins


def _swapped(text: Lengths, rate: float, generator: np.random.Generator) -> Lengths:
    """The order of the words after each was chosen with probability ``rate`` and those chosen in a
    text traded places at random."""
    order = np.arange(len(text))
    if rate > 0:
        chosen = np.flatnonzero(generator.random(len(text)) < rate)
        order[chosen] = chosen[np.lexsort((generator.random(len(chosen)), text[chosen]))]
    return order


def _kept(text: Lengths, rate: float, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which words stay, each with probability ``1 - rate``; a text keeps at least one."""
    if rate == 0:
        return np.ones(len(text), dtype=np.bool_)
    draws = generator.random(len(text))
    kept = draws >= rate
    begins = np.flatnonzero(np.diff(text, prepend=-1))
    if len(begins):
        most = np.maximum.reduceat(draws, begins)
        kept |= draws == np.repeat(most, np.diff(np.append(begins, len(text))))
    return kept

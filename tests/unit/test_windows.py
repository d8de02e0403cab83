"""Long texts as sliding windows: which pieces they hold, and what is made of their logits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.classifier import Classifier
from model.config import TrainConfig
from model.evaluation import evaluate
from model.network import Head, build_network, load_base
from model.normalised_file import Examples
from model.tokens import Frame, Lengths, Ragged, Sequences, TokenTable
from model.training import TrainData, TrainResult, train
from model.windows import Windows, lost_pieces, read_texts

CPU = torch.device("cpu")
LABELS = ("login", "payment", "shipping")
WINDOWS = TrainConfig(truncation="windows", max_length=6, window_stride=0.5)


def ragged(*texts: str) -> Ragged:
    """A letter is a piece, `a` is 1."""
    ids = np.array([ord(letter) - 96 for letter in "".join(texts)], dtype=np.int32)
    offsets: Lengths = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return Ragged(ids, offsets)


def table(*texts: str, second: tuple[str, ...] | None = None) -> TokenTable:
    middle = () if second is None else ((28, 0),)
    frame = Frame(((27, 0),), middle, ((28, 1 if second else 0),), 0, 1 if second else 0)
    return TokenTable(ragged(*texts), None if second is None else ragged(*second), frame, None)


def spell(sequences: Sequences | Windows) -> list[str]:
    assert isinstance(sequences, Sequences)
    names = " abcdefghijklmnopqrstuvwxyz[|"
    ends = zip(sequences.offsets, sequences.offsets[1:], strict=False)
    return ["".join(names[piece] for piece in sequences.ids[a:b]) for a, b in ends]


def windows(found: Sequences | Windows) -> Windows:
    assert isinstance(found, Windows)
    return found


def test_windows_move_by_their_stride_and_the_last_ends_with_the_text() -> None:
    found = windows(read_texts(table("abcd", "abcdefghi", ""), WINDOWS))
    # Four pieces fit, so windows move by two; the last one of nine begins at the sixth.
    assert spell(found.rows) == ["[abcd|", "[abcd|", "[cdef|", "[efgh|", "[fghi|", "[|"]
    assert found.offsets.tolist() == [0, 1, 5, 6]
    assert found.lengths.tolist() == [6, 24, 2]
    assert (len(found), found.truncated_rows, found.lost_tokens) == (3, 0, 0)
    assert found.of(np.array([2, 1])).tolist() == [5, 1, 2, 3, 4]


def test_windows_that_do_not_overlap_and_are_not_too_many() -> None:
    text = table("abcdefghijk", "abc")
    config = replace(WINDOWS, window_stride=1.0)
    assert spell(windows(read_texts(text, config)).rows) == ["[abcd|", "[efgh|", "[hijk|", "[abc|"]
    few = replace(config, max_windows=2)
    found = windows(read_texts(text, few))
    assert spell(found.rows) == ["[abcd|", "[efgh|", "[abc|"]
    assert (found.truncated_rows, found.lost_tokens) == (1, 3)
    assert lost_pieces(text, few).tolist() == [3, 0]


def test_a_narrow_window_still_moves() -> None:
    config = replace(WINDOWS, max_length=3, window_stride=0.1)
    assert spell(windows(read_texts(table("abc"), config)).rows) == ["[a|", "[b|", "[c|"]


def test_of_a_pair_the_longer_text_has_windows() -> None:
    pair = table("ab", "abcdefg", "abcdef", second=("uvwxyz", "z", "uvwxyz"))
    found = windows(read_texts(pair, replace(WINDOWS, max_length=7, window_stride=1.0)))
    assert spell(found.rows)[:3] == ["[ab|uv|", "[ab|wx|", "[ab|yz|"]
    assert spell(found.rows)[3:6] == ["[abc|z|", "[def|z|", "[efg|z|"]
    # Both too long: the second, which is not the longer one, is cut to half of the room.
    assert spell(found.rows)[6:] == ["[ab|uv|", "[cd|uv|", "[ef|uv|"]
    assert (found.truncated_rows, found.lost_tokens) == (1, 4)
    assert isinstance(found.rows, Sequences)
    assert found.rows.type_ids[:7].tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("max_length", [4, 5, 6])
def test_of_a_pair_of_equal_length_one_text_is_read_whole(max_length: int) -> None:
    pairs = table("abcdefgh", second=("ijklmnop",))
    found = windows(read_texts(pairs, replace(WINDOWS, max_length=max_length)))
    shown = spell(found.rows)
    assert len(set(shown)) == len(shown)
    read = {letter for window in shown for letter in window}
    assert read > set("abcdefgh") or read > set("ijklmnop")
    assert found.lost_tokens == 16 - len(read - set("[|"))


def test_what_a_cut_loses_is_counted_alike() -> None:
    text = table("abcd", "abcdefghi")
    for cut in ("head", "tail", "head_tail"):
        config = replace(WINDOWS, truncation=cut)
        assert lost_pieces(text, config).tolist() == [0, 5]
        assert read_texts(text, config).lost_tokens == 5


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_the_logits_of_a_text_are_pooled_over_its_windows(
    model_folder: Callable[[str], Path], model_type: str, pooling: Any
) -> None:
    network = build_network(
        load_base(model_folder(model_type)), Head(LABELS), device=CPU, dropout=0.0
    )
    classifier = Classifier(network.eval(), 40, CPU, "fp32")
    config = replace(WINDOWS, window_pooling=pooling)
    found = windows(read_texts(table("abcd", "abcdefghi", "ab"), config))
    pooled = classifier.logits(found, np.array([2, 1]))
    single = classifier.logits(found.rows, np.arange(6))
    of_second = single[1:5]
    expected = of_second.mean(0) if pooling == "mean" else of_second.max(0).values
    torch.testing.assert_close(pooled, torch.stack([single[5], expected]), atol=1e-5, rtol=0)


CONFIG = TrainConfig(
    truncation="windows",
    max_length=6,
    learning_rate=2e-4,
    batch_size=8,
    epochs=1,
    dropout=0.0,
    precision="fp32",
    window_pooling="max",
)


@pytest.fixture
def data(examples: Callable[[int, int], Examples]) -> TrainData:
    return TrainData(
        train=examples(24, 1), validation=examples(12, 2), labels=LABELS, dataset_key="words"
    )


def run(config: TrainConfig, data: TrainData) -> TrainResult:
    return train(config, data, device=CPU, on_epoch=lambda report: "continue")


def test_a_batch_of_texts_in_parts_is_the_whole_batch(
    data: TrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(CONFIG, data)
    logits = Classifier.logits

    def limited(self: Classifier, sequences: Any, positions: Any) -> torch.Tensor:
        if len(positions) > 3:
            raise MemoryError
        return logits(self, sequences, positions)

    monkeypatch.setattr(Classifier, "logits", limited)
    parts = run(CONFIG, data)
    assert whole.trained is not None
    assert parts.trained is not None
    assert (whole.truncated_share, whole.steps, parts.steps) == (0, 3, 3)
    for name, weights in whole.trained.weights.items():
        torch.testing.assert_close(parts.trained.weights[name], weights, atol=2e-6, rtol=0)


def test_a_saved_model_is_scored_over_windows_too(data: TrainData, tmp_path: Path) -> None:
    result = run(replace(CONFIG, learning_rate=2e-3), data)
    result.save(tmp_path / "saved")
    again = evaluate(tmp_path / "saved", data.validation, LABELS, CONFIG, device=CPU)
    assert again.metrics == pytest.approx(result.metrics, abs=1e-5)
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert "reads the first window" in card

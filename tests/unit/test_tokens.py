import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from model.config import Cut
from model.errors import InputError
from model.tokens import (
    Sequences,
    TokenTable,
    lengths_summary,
    load_tokenizer,
    tokenize,
    unknown_share,
)
from model.vocabulary import save_tokenizer, train_wordpiece

TEXTS = [
    "My invoice shows the wrong amount, please correct the invoice number 4711.",
    "Refund!",
    "",
    "The parcel never came although the tracking page says it was delivered on Monday — twice.",
    "Résumé 日本 ünïcode",
    "reset the password, the resetting link has expired (again), " * 8,
]
OTHERS = ["yes", "The second text is the longer one here, by far.", "x", "", "no no no", "b " * 60]


def letters() -> Tokenizer:
    """A tokenizer one can follow by hand: a-z are 10-35, <s> is 1, </s> is 2, ? is unknown."""
    vocab = {"<s>": 1, "</s>": 2, "?": 3} | {chr(97 + k): 10 + k for k in range(26)}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="?"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s>:1 $B:1 </s>:1",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return tokenizer


def spell(sequences: Sequences, row: int) -> str:
    names = {1: "<", 2: ">", 3: "?"} | {10 + k: chr(97 + k) for k in range(26)}
    piece = slice(sequences.offsets[row], sequences.offsets[row + 1])
    return "".join(names[k] for k in sequences.ids[piece].tolist())


def spaced(*words: str) -> list[str]:
    return [" ".join(word) for word in words]


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        ("head", ["<abcde>", "<ab>", "<>"]),
        ("tail", ["<efghi>", "<ab>", "<>"]),
        ("head_tail", ["<abchi>", "<ab>", "<>"]),
    ],
)
def test_a_long_text_is_cut_where_the_truncation_says(truncation: Cut, expected: list[str]) -> None:
    sequences = tokenize(letters(), spaced("abcdefghi", "ab", "")).fit(7, truncation)
    assert [spell(sequences, row) for row in range(3)] == expected
    assert (sequences.truncated_rows, sequences.lost_tokens) == (1, 4)
    assert sequences.lengths.tolist() == [7, 4, 2]
    assert sequences.offsets.tolist() == [0, 7, 11, 13]
    assert (sequences.ids.dtype.name, sequences.type_ids.dtype.name) == ("int32", "uint8")


def test_the_longer_text_of_a_pair_is_cut_first() -> None:
    table = tokenize(letters(), spaced("abcdef", "ab", "abcd"), spaced("xy", "uvwxyz", "wxyz"))
    sequences = table.fit(4 + 5)
    assert [spell(sequences, k) for k in range(3)] == ["<abc>>xy>", "<ab>>uvw>", "<ab>>wxy>"]
    assert sequences.type_ids[:9].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert (sequences.truncated_rows, sequences.lost_tokens) == (3, 3 + 3 + 3)
    tail = table.fit(4 + 5, "tail")
    assert [spell(tail, k) for k in range(3)] == ["<def>>xy>", "<ab>>xyz>", "<cd>>xyz>"]


def test_rows_that_fit_exactly_are_whole() -> None:
    sequences = tokenize(letters(), spaced("abc"), spaced("xyz")).fit(10)
    assert spell(sequences, 0) == "<abc>>xyz>"
    assert (sequences.truncated_rows, sequences.lost_tokens) == (0, 0)


def test_many_rows_are_laid_out_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["abcdefgh"[: k % 9] for k in range(20)]
    table = tokenize(letters(), spaced(*words), spaced(*reversed(words)))
    whole = table.fit(12)
    monkeypatch.setattr("model.tokens._BLOCK_ROWS", 3)
    blocks = table.fit(12)
    assert blocks.ids.tolist() == whole.ids.tolist()
    assert blocks.type_ids.tolist() == whole.type_ids.tolist()


def test_a_max_length_that_only_special_tokens_fill_is_refused() -> None:
    table = tokenize(letters(), ["a"], ["b"])
    assert spell(table.fit(5), 0) == "<>>b>"
    with pytest.raises(InputError, match="4 special ones") as caught:
        table.fit(4)
    assert (caught.value.code, caught.value.where) == ("invalid_value", ("max_length",))


def test_lengths_and_shares_are_counted_by_hand() -> None:
    table = tokenize(letters(), spaced("abcdefgh", "ab", "a1", "3"))
    assert table.lengths.tolist() == [10, 4, 4, 3]
    assert lengths_summary(table) == {"p50": 4, "p90": 10, "p95": 10, "p99": 10, "max": 10}
    assert unknown_share(table) == 2 / 13
    assert table.nbytes == 13 * 4 + 5 * 8


def test_progress_counts_the_texts_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.tokens._CHUNK_TEXTS", 2)
    seen: list[tuple[int, int]] = []
    table = tokenize(letters(), ["a"] * 3, ["b"] * 3, progress=lambda *step: seen.append(step))
    assert seen == [(2, 6), (3, 6), (5, 6), (6, 6)]
    assert len(table) == 3


def test_a_tokenizer_that_truncates_or_pads_is_refused() -> None:
    truncating, padding = letters(), letters()
    truncating.enable_truncation(8)
    padding.enable_padding()
    for tokenizer in (truncating, padding):
        with pytest.raises(ValueError, match="load_tokenizer"):
            tokenize(tokenizer, ["a"])


def test_texts_of_a_pair_must_come_in_equal_numbers() -> None:
    with pytest.raises(ValueError, match="2 first texts but 1 second"):
        tokenize(letters(), ["a", "b"], ["c"])


def bert_folder(folder: Path) -> Path:
    save_tokenizer(train_wordpiece(TEXTS * 2, vocab_size=300), folder)
    return folder


def roberta_folder(folder: Path) -> Path:
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(TEXTS * 2, vocab_size=400, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def assert_equals_transformers(folder: Path, ours: Tokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    single, paired = tokenize(ours, TEXTS), tokenize(ours, TEXTS, OTHERS)
    sides: dict[Cut, str] = {"head": "right", "tail": "left"}
    for truncation, side in sides.items():
        theirs.truncation_side = side
        for max_length in (5, 6, 7, 12, 33, 512):
            for table, texts in ((single, (TEXTS,)), (paired, (TEXTS, OTHERS))):
                expected = theirs(
                    *texts,
                    truncation=True,
                    max_length=max_length,
                    return_token_type_ids=True,
                )
                compare(table, max_length, truncation, expected)


def compare(table: TokenTable, max_length: int, truncation: Cut, expected: Any) -> None:
    sequences = table.fit(max_length, truncation)
    for row in range(len(sequences)):
        piece = slice(sequences.offsets[row], sequences.offsets[row + 1])
        place = f"row {row}, max_length {max_length}, {truncation}"
        assert sequences.ids[piece].tolist() == expected["input_ids"][row], place
        assert sequences.type_ids[piece].tolist() == expected["token_type_ids"][row], place


def test_a_bert_tokenizer_gives_what_transformers_gives(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    assert_equals_transformers(folder, load_tokenizer(folder))


def test_vocab_txt_alone_gives_the_same_tokens_as_tokenizer_json(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    whole = tokenize(load_tokenizer(folder), TEXTS, OTHERS).fit(40)
    (folder / "tokenizer.json").unlink()
    assert_equals_transformers(folder, load_tokenizer(folder))
    (folder / "tokenizer_config.json").unlink()
    alone = tokenize(load_tokenizer(folder), TEXTS, OTHERS).fit(40)
    assert alone.ids.tolist() == whole.ids.tolist()


def test_a_cased_vocab_txt_follows_its_config(tmp_path: Path) -> None:
    save_tokenizer(train_wordpiece(TEXTS * 2, vocab_size=300, lowercase=False), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("My").ids != tokenizer.encode("my").ids


def test_a_byte_level_tokenizer_gives_what_transformers_gives(tmp_path: Path) -> None:
    folder = roberta_folder(tmp_path)
    assert_equals_transformers(folder, load_tokenizer(folder))


def test_truncation_and_padding_stored_in_tokenizer_json_are_switched_off(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=300)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert len(loaded.encode(TEXTS[0]).ids) > 4
    assert len(loaded.encode("").ids) == 2


def test_a_folder_without_tokenizer_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "no_tokenizer"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "bad_tokenizer"

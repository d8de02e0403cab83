import os
import subprocess
import sys
from pathlib import Path

from model.vocabulary import SPECIAL_TOKENS, save_tokenizer, train_wordpiece

TEXTS = [
    "My invoice shows the wrong amount, please correct the invoice.",
    "The INVOICE was paid twice; I'd like a refund for the second payment!",
    "Refunding takes too long — I was refunded in 2023, résumé attached. 日本",
    "Reset my password, the resetting link has expired (again).",
] * 3

TRAIN_AND_HASH = """
import hashlib, sys
from model.vocabulary import train_wordpiece
texts = [f"word{n % 41} {n * 7919 % 1009} shared äöü common-{n % 13} UPPER" for n in range(2000)]
text = train_wordpiece(texts, vocab_size=600).to_str()
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_special_tokens_have_the_ids_0_to_4() -> None:
    vocab = train_wordpiece(TEXTS, vocab_size=400).get_vocab()
    assert [vocab[token] for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert sorted(vocab.values()) == list(range(len(vocab)))


def test_every_letter_of_the_data_can_be_spelled_and_others_are_unknown() -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400)
    encoded = tokenizer.encode("zebra quizzes", add_special_tokens=False)
    assert encoded.tokens == ["[UNK]", "[UNK]"]  # no q and no z in the texts
    encoded = tokenizer.encode("wrongly refunded", add_special_tokens=False)
    assert "[UNK]" not in encoded.tokens
    assert tokenizer.decode(encoded.ids) == "wrongly refunded"


def test_frequent_words_become_one_piece() -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400)
    assert tokenizer.encode("Invoice REFUND").tokens == ["[CLS]", "invoice", "refund", "[SEP]"]


def test_pairs_get_two_separators_and_type_ids() -> None:
    encoded = train_wordpiece(TEXTS, vocab_size=400).encode("invoice", "refund")
    assert encoded.tokens == ["[CLS]", "invoice", "[SEP]", "refund", "[SEP]"]
    assert encoded.type_ids == [0, 0, 0, 1, 1]


def test_a_cased_vocabulary_tells_capitals_apart() -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400, lowercase=False)
    assert tokenizer.encode("My").ids != tokenizer.encode("my").ids
    uncased = train_wordpiece(TEXTS, vocab_size=400)
    assert uncased.encode("My").ids == uncased.encode("my").ids


def test_text_that_looks_like_a_word_piece_is_no_special_token() -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400)
    assert "##a" in tokenizer.get_vocab()
    assert "##a" not in tokenizer.encode("##a").tokens
    special = {str(token) for token in tokenizer.get_added_tokens_decoder().values()}
    assert len(special) == len(SPECIAL_TOKENS)


def test_the_vocabulary_keeps_to_its_size_even_with_many_characters() -> None:
    texts = ["".join(chr(0x4E00 + (n * 7 + k) % 900) for k in range(30)) for n in range(300)]
    assert train_wordpiece(texts, vocab_size=300).get_vocab_size() <= 300


def test_fresh_processes_train_the_same_vocabulary() -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", TRAIN_AND_HASH],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "random")
    }
    assert len(hashes) == 1


def test_saved_files_load_in_transformers_as_the_same_bert_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400)
    save_tokenizer(tokenizer, tmp_path)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded).__name__.startswith("BertTokenizer")
    texts = ["Résumé: REFUND my invoice (2023)?", "日本 [SEP] zzz ##a"]
    for text in texts:
        assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
        assert loaded(text, "pair")["token_type_ids"] == tokenizer.encode(text, "pair").type_ids
    assert (loaded.pad_token_id, loaded.unk_token_id, loaded.mask_token_id) == (0, 1, 4)


def test_vocab_txt_lists_the_pieces_by_id(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, vocab_size=400)
    save_tokenizer(tokenizer, tmp_path)
    pieces = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert pieces == [tokenizer.id_to_token(k) for k in range(tokenizer.get_vocab_size())]

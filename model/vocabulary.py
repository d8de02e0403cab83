"""A WordPiece vocabulary trained on the data set itself, for models that start from scratch.

The result must be equal in every process that trains it (the server stores it by data set, and
results must repeat), which takes care: the trainer's own hash maps are seeded per process.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In the order of their ids, 0 to 4."""
CONTINUATION = "##"
_MAX_ALPHABET = 1000


def train_wordpiece(
    texts: Iterable[str], vocab_size: int = 8000, lowercase: bool = True
) -> Tokenizer:
    """Train an uncased (or cased) BERT tokenizer; small data give fewer than ``vocab_size`` pieces.

    The same texts, in the same order, give the same vocabulary in every process.
    """
    lines = list(texts)
    normalizer = BertNormalizer(lowercase=lowercase)
    alphabet = _alphabet(lines, normalizer, min(_MAX_ALPHABET, vocab_size // 4))
    continued = [CONTINUATION + char for char in alphabet]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        # The trainer numbers the ##-pieces it meets in the order of a randomly seeded map, and
        # breaks ties between merges by these numbers; named as special they get fixed ones.
        special_tokens=[*SPECIAL_TOKENS, *continued],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUATION,
    )
    trained = Tokenizer(WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizer
    trained.pre_tokenizer = BertPreTokenizer()
    trained.train_from_iterator(lines, trainer, length=len(lines))
    # A fresh tokenizer, because the trained one takes every ##-piece for a special token.
    return bert_tokenizer(trained.get_vocab(), normalizer)


def _alphabet(lines: list[str], normalizer: BertNormalizer, size: int) -> list[str]:
    """Return the ``size`` most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(normalizer.normalize_str(line))
    ranked = sorted(
        (char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char)
    )
    return sorted(ranked[:size])


def bert_tokenizer(vocab: dict[str, int], normalizer: BertNormalizer) -> Tokenizer:
    """Build a BERT tokenizer for a vocabulary that holds `SPECIAL_TOKENS`."""
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder(prefix=CONTINUATION)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in SPECIAL_TOKENS if token in vocab]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a WordPiece tokenizer so that Transformers loads it as a BERT tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.normalizer.lowercase,
        "strip_accents": tokenizer.normalizer.strip_accents,
        "tokenize_chinese_chars": tokenizer.normalizer.handle_chinese_chars,
        "model_max_length": 512,
    } | {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    text = "".join(f"{piece}\n" for piece, _ in pieces)
    (folder / "vocab.txt").write_text(text, encoding="utf-8")

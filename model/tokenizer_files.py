"""The tokenizer of a model folder, from whichever files the folder has."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from model.errors import InputError
from model.vocabulary import bert_tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder, without truncation or padding.

    Reads ``tokenizer.json``, else BERT's ``vocab.txt``, else RoBERTa's ``vocab.json`` and
    ``merges.txt``. Raises `InputError` ``no_tokenizer`` or ``bad_tokenizer``.
    """
    try:
        tokenizer = _load(folder)
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exception for files it cannot parse
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
    sep, cls = (("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]))
    tokenizer.post_processor = RobertaProcessing(sep, cls, True, prefix_space)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        + [AddedToken("<mask>", lstrip=True, special=True)]
    )
    return tokenizer

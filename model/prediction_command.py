"""`python -m model predict`: texts in, a line of JSON out for each of them."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from model.checkpoint import read_checkpoint
from model.data_arguments import add_option_arguments, read_data_options
from model.errors import InputError
from model.exit_code import exit_code

DESCRIPTION = """\
Ask a model that Bertune saved. Prints a line of JSON for every text, in their order: what it
says, and how probable that is to it."""

EXAMPLE = """\
example: echo "I lost my card" | python -m model predict tickets-model"""

_OPTIONS = (
    "text",
    "separator",
    "template",
    "text_b",
    "text_columns",
    "format",
    "delimiter",
    "quoting",
    "encoding",
    "normalise",
    "missing",
    "missing_token",
)


def main(arguments: Sequence[str]) -> int:
    return exit_code(lambda: _run(_parser().parse_args(arguments)))


def _run(asked: argparse.Namespace) -> None:
    read_checkpoint(asked.folder)  # a folder that is no model is refused before torch is loaded

    import torch

    from model.labels.readers import texts_reader
    from model.prediction import predict
    from model.saved_model import read_saved
    from model.texts_file import read_texts_file

    if asked.threads is not None:
        if asked.threads < 1:
            detail = f"It must be at least 1; got {asked.threads}."
            raise InputError("invalid_value", detail, ("--threads",))
        torch.set_num_threads(asked.threads)
    options, saved = read_data_options(asked), read_saved(asked.folder)
    if asked.input is None:
        texts: tuple[list[str], ...] = (_lines(sys.stdin.buffer),)
    else:
        texts = read_texts_file(asked.input, options, texts_reader(saved.config.task))
    found = predict(asked.folder, *texts, device=asked.device, normalise=options.normalise)
    for answer in found:
        sys.stdout.write(json.dumps(dataclasses.asdict(answer), ensure_ascii=False) + "\n")


def _lines(stream: BinaryIO) -> list[str]:
    """Raises `InputError` ``not_utf8``."""
    lines = []
    for number, line in enumerate(stream, 1):
        try:
            lines.append(line.decode("utf-8-sig").rstrip("\r\n"))
        except UnicodeDecodeError as error:
            detail = f"Line {number} of standard input is not UTF-8."
            raise InputError("not_utf8", detail, ("stdin", f"line {number}")) from error
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model predict",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the model")
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="CSV, TSV, JSONL or Parquet with the columns text (or text_a and text_b; tokens for a "
        "model of tags); else every line of standard input is a text",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    add_option_arguments(parser.add_argument_group("of --input"), _OPTIONS)
    return parser

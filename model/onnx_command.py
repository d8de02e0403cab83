"""`python -m model onnx`: a saved model's network as an ONNX file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.checkpoint import read_checkpoint
from model.exit_code import exit_code

DESCRIPTION = """\
Write the network of a model that Bertune saved as an ONNX file, for runtimes without torch, and
compare what the two say. Prints the file's path. Needs pip install 'bertune[onnx]'."""

EXAMPLE = """\
example: python -m model onnx tickets-model"""


def main(arguments: Sequence[str]) -> int:
    return exit_code(lambda: _run(_parser().parse_args(arguments)))


def _run(asked: argparse.Namespace) -> None:
    read_checkpoint(asked.folder)  # a folder that is no model is refused before torch is loaded

    from model.onnx_export import export_onnx

    sys.stdout.write(f"{export_onnx(asked.folder, asked.out)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model onnx",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the model")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write; default FOLDER/onnx/model.onnx, where Optimum and Transformers.js "
        "look for it",
    )
    return parser

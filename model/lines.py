"""Text lines of a file, with the decoding faults that name the line a person has to mend."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from model.errors import InputError

_CHUNK_BYTES = 1 << 20
_OF_NO_FILE = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
"""Of domain names, of Python's own source and of nothing; Python counts them among those of text,
but they cannot be read in parts, warn of what they meet or fail without a place."""


def check_encoding(encoding: str) -> None:
    """Raise `InputError` ``unknown_encoding`` unless Python can decode files with ``encoding``."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        known = codecs.lookup(encoding).name not in _OF_NO_FILE
    except (LookupError, ValueError):
        known = False
    if not known:
        detail = f"{encoding!r} is no encoding of text files that Python knows."
        raise InputError(
            "unknown_encoding", f"{detail} Common: utf-8, latin-1, utf-16.", ("options", "encoding")
        )


def read_lines(path: Path, split: str, encoding: str, *, newline: str) -> Iterator[str]:
    """Yield the lines of ``path`` with their line ends; a byte-order mark is skipped.

    ``newline`` is `open`'s: ``""`` ends lines at CR, LF or CRLF, ``"\\n"`` at LF alone. Raises
    `InputError` ``not_utf8``, ``wrong_encoding`` or ``nul_byte`` with the line's number.
    """
    codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        with path.open(encoding=codec, newline=newline) as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise InputError(
                        "nul_byte",
                        f"Line {number} of {split} holds a NUL byte, so it is no plain text. "
                        "If it is UTF-16, set options.encoding to utf-16.",
                        (split, f"line {number}"),
                    )
                yield line
    except UnicodeError as error:
        raise _decoding_error(path, split, encoding, codec) from error


def _decoding_error(path: Path, split: str, encoding: str, codec: str) -> InputError:
    """The reader buffers, so the line is found by decoding the file again up to the fault."""
    line = _first_bad_line(path, codec)
    if codec == "utf-8-sig":
        detail = (
            f"Line {line} of {split} is not UTF-8. Save the file as UTF-8, or name its encoding "
            "in options.encoding (latin-1 and cp1252 are common)."
        )
        return InputError("not_utf8", detail, (split, f"line {line}"))
    detail = f"Line {line} of {split} is not {encoding}; check options.encoding."
    return InputError("wrong_encoding", detail, (split, f"line {line}"))


def _first_bad_line(path: Path, codec: str) -> int:
    decoder = codecs.getincrementaldecoder(codec)()
    line = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                decoded = error.object[: error.start].decode(codec, errors="ignore")
                return line + decoded.count("\n")
            except UnicodeError:  # UTF-16 and UTF-32 raise this without a place for a missing mark
                return line
            if not chunk:
                return line

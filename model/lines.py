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

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the one of UTF-16 does, so it is looked for first
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8",
}


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
    """Yield the lines of ``path`` with their line ends; byte-order marks before them are skipped.

    ``newline`` is `open`'s: ``""`` ends lines at CR, LF or CRLF, ``"\\n"`` at LF alone. Raises
    `InputError` ``not_utf8``, ``wrong_encoding`` or ``nul_byte`` with the line's number.
    """
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise InputError(
                        "nul_byte",
                        f"Line {number} of {split} holds a NUL byte, so it is no plain text. "
                        "If it is UTF-16, set options.encoding to utf-16.",
                        (split, f"line {number}"),
                    )
                # Whatever the codec leaves of marks: utf-16-le keeps one, tools may write two.
                yield line.lstrip("\ufeff") if number == 1 else line
    except UnicodeError as error:
        raise _decoding_error(path, split, encoding) from error


def _decoding_error(path: Path, split: str, encoding: str) -> InputError:
    """The reader buffers, so the line is found by decoding the file again up to the fault."""
    line = _first_bad_line(path, encoding)
    where = (split, f"line {line}")
    codec = codecs.lookup(encoding).name
    utf8 = codec in ("utf-8", "utf-8-sig")
    marked = _marked_encoding(path)
    if marked is not None and not codec.startswith(marked):
        advice = f": the file begins as {marked} does. Set options.encoding to {marked}."
    elif utf8:
        advice = (
            ". Save the file as UTF-8, or name its encoding in options.encoding (latin-1 and "
            "cp1252 are common)."
        )
    else:
        advice = "; check options.encoding."
    if utf8:
        return InputError("not_utf8", f"Line {line} of {split} is not UTF-8{advice}", where)
    detail = f"Line {line} of {split} is not {encoding}{advice}"
    return InputError("wrong_encoding", detail, where)


def _marked_encoding(path: Path) -> str | None:
    """The encoding that the file's byte-order mark speaks of, None without one."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


def _first_bad_line(path: Path, encoding: str) -> int:
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                decoded = error.object[: error.start].decode(encoding, errors="ignore")
                return line + decoded.count("\n")
            except UnicodeError:  # UTF-16 and UTF-32 raise this without a place for a missing mark
                return line
            if not chunk:
                return line

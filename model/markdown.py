"""Texts of others within Markdown, such as labels, which must show as they stand."""

import re

_MARKUP = re.compile(
    r"[\\`*\[\]#<>|~$&!:@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word, as in macro_f1, it marks nothing
)


def literal(text: str) -> str:
    """Markdown for ``text`` in one line, in a table too: no markup, no line breaks."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """A code span that shows ``text`` as it stands, in one line; backticks in it end none."""
    line = " ".join(text.split())
    runs = [len(run) for run in re.findall("`+", line)]
    fence = "`" * next(length for length in range(1, len(line) + 2) if length not in runs)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"

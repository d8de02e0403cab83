"""Texts of others within Markdown, such as labels, which must show as they stand."""

import re

_MARKUP = re.compile(
    r"[\\`*\[\]#<>|~$&!:@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word, as in macro_f1, it marks nothing
)


def literal(text: str) -> str:
    """Markdown for ``text`` in one line, in a table too: no markup, no line breaks."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))

"""Texts as they were meant: what a wrong decoding, a copy or an export did to them is undone.

What the text says is never changed: curly quotes, HTML entities, wide letters and ligatures stay.
"""

import re
import unicodedata
from dataclasses import dataclass, field

from ftfy import TextFixerConfig, fix_text

KINDS = ("mojibake", "byte_order_mark", "control_characters", "line_breaks", "unicode_form")
"""What is repaired: UTF-8 read as another encoding; marks inside a text; characters that nobody
sees, removed (separators become spaces); every way to end a line, written as one line feed, which
stays; and composed letters (NFC), so that equal words are equal."""

# Mojibake alone: everything else that ftfy can do is done here, where it is counted, or left be.
_MOJIBAKE = TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)
_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_SEPARATORS = re.compile("[\x1c-\x1f]")
_CONTROLS = re.compile(
    "\x1b\\[[0-9;]*[a-zA-Z]|[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u206a-\u206f\ufff9-\ufffb]"
)
_PLAIN = re.compile("[\t\n\x20-\x7e]*")


@dataclass(slots=True)
class TextRepair:
    """Repairs texts and remembers what it found in them until it is asked."""

    _found: set[str] = field(default_factory=set)

    def repair(self, text: str) -> str:
        """Return ``text`` repaired; a text that needs nothing is returned as it is."""
        if _PLAIN.fullmatch(text):
            return text
        if not text.isascii():
            text = self._noted("mojibake", text, fix_text(text, _MOJIBAKE))
            text = self._noted("byte_order_mark", text, text.replace("\ufeff", ""))
        text = self._noted("line_breaks", text, _LINE_BREAKS.sub("\n", text))
        seen = _CONTROLS.sub("", _SEPARATORS.sub(" ", text))
        text = self._noted("control_characters", text, seen)
        return self._noted("unicode_form", text, unicodedata.normalize("NFC", text))

    def take_found(self) -> set[str]:
        """The kinds found since the last call."""
        found, self._found = self._found, set()
        return found

    def _noted(self, kind: str, before: str, after: str) -> str:
        if after != before:
            self._found.add(kind)
        return after

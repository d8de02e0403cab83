"""Texts within Markdown show as they stand: what a renderer makes of them is the text again."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from model.markdown import code, literal

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = r"""\`*_[]()#<>|~$&!:@-+.=^"'{}/;?,% aB1ä"""


def shown(text: str) -> str:
    """What a reader sees of a table's cell with ``text``."""
    rendered = RENDERER.render(f"| head | x |\n| --- | --- |\n| {literal(text)} | 1 |")
    _, _, body = rendered.partition("<tbody>")
    cell, _, rest = body.partition("<td>")[2].partition("</td>")
    assert rest.count("<td>") == 1
    return html.unescape(cell)


@given(text=st.text(alphabet=MARKUP, max_size=12))
def test_no_markup_is_taken_as_such(text: str) -> None:
    assert shown(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [r"a\|b", "<b>", "<!-- gone", "*star*", "[x](y)", "`tick`", "&amp;", "_a_", "a_b", "a__b c_"],
)
def test_what_labels_have_held_shows_as_it_stands(text: str) -> None:
    assert shown(text) == text


def test_names_stay_as_they_are_written() -> None:
    assert literal("macro_f1 at learning_rate 0.002") == "macro_f1 at learning_rate 0.002"
    assert literal("two\nlines\t and  more") == "two lines and more"


@given(text=st.text(alphabet="`a \\*<", min_size=1, max_size=12).filter(str.strip))
def test_code_holds_any_text_and_nothing_else(text: str) -> None:
    rendered = RENDERER.render(f"from {code(text)} on")
    before, _, rest = rendered.partition("<code>")
    inside, _, after = rest.partition("</code>")
    assert (before, html.unescape(inside), after) == (
        "<p>from ",
        " ".join(text.split()),
        " on</p>\n",
    )

import pytest

from model.text_repair import TextRepair


@pytest.mark.parametrize(
    ("text", "repaired", "kinds"),
    [
        ("schÃ¶n", "schön", {"mojibake"}),
        ("itâ€™s", "it’s", {"mojibake"}),
        ("a\ufeffb", "ab", {"byte_order_mark"}),
        ("be\x08ll", "bell", {"control_characters"}),
        ("\x1b[31mred\x1b[0m", "red", {"control_characters"}),
        ("one\x1ftwo", "one two", {"control_characters"}),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd", {"line_breaks"}),
        ("cafe\u0301", "café", {"unicode_form"}),
    ],
)
def test_what_an_export_did_to_a_text_is_undone_and_named(
    text: str, repaired: str, kinds: set[str]
) -> None:
    repair = TextRepair()
    assert repair.repair(text) == repaired
    assert repair.take_found() == kinds
    assert repair.take_found() == set(), "found twice"


@pytest.mark.parametrize(
    "text",
    ["“quoted” – so", "a &amp; b", "ＷＩＤＥ", "ﬁne", "two\nlines\tand a tab", "日本語", "👩‍🚀"],
)
def test_what_a_text_says_stays(text: str) -> None:
    repair = TextRepair()
    assert repair.repair(text) == text
    assert repair.take_found() == set()

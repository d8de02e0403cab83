"""The drawn confusion matrix says what the numbers say, whatever the labels hold."""

import re
import xml.etree.ElementTree as ET

import pytest

from service.pages.confusion_svg import confusion_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(labels: list[str], matrix: list[list[int]], title: str = "t") -> ET.Element:
    return ET.fromstring(confusion_svg(labels, matrix, title=title))


def tooltips(root: ET.Element) -> dict[str, str]:
    """Each cell's tooltip and its colour."""
    return {
        str(title.text): str(rect.get("fill"))
        for rect in root.iter(f"{SVG}rect")
        if (title := rect.find(f"{SVG}title")) is not None
    }


def texts(root: ET.Element) -> list[str]:
    return ["".join(node.text or "" for node in [text]) for text in root.iter(f"{SVG}text")]


def test_every_cell_above_zero_has_its_count_and_its_share_of_the_row() -> None:
    root = drawn(["cat", "dog"], [[3, 1], [0, 4]])
    assert set(tooltips(root)) == {
        "cat → cat: 3 (75.0%)",
        "cat → dog: 1 (25.0%)",
        "dog → dog: 4 (100.0%)",
    }
    assert {"3", "1", "4"} <= set(texts(root))
    assert {"75%", "100%"} <= set(texts(root))  # recall at the end of each row


def test_right_cells_are_blue_wrong_ones_orange_and_a_larger_share_is_darker() -> None:
    root = drawn(["a", "b"], [[5, 5], [1, 9]])
    colours = {
        name: tuple(int(fill[at : at + 2], 16) for at in (1, 3, 5))
        for name, fill in tooltips(root).items()
    }
    right_half, wrong_half = colours["a → a: 5 (50.0%)"], colours["a → b: 5 (50.0%)"]
    wrong_tenth, right_most = colours["b → a: 1 (10.0%)"], colours["b → b: 9 (90.0%)"]
    assert right_half[2] > right_half[0]
    assert wrong_half[0] > wrong_half[2]
    assert sum(right_most) < sum(right_half)
    assert sum(wrong_half) < sum(wrong_tenth)


def test_the_title_and_the_description_are_there_for_those_who_cannot_see_it() -> None:
    root = drawn(["a", "b"], [[3, 1], [0, 4]], title="tickets & more <1>")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert root.findtext(f"{SVG}title") == "tickets & more <1>"
    description = root.findtext(f"{SVG}desc")
    assert description is not None
    assert "2 classes" in description
    assert "8 rows, 7 (87.5%) right" in description


@pytest.mark.parametrize(
    "label", ["<script>alert(1)</script>", "a & b", 'it\'s "quoted"', "]]>", "nul\x00", "\ud800"]
)
def test_labels_cannot_break_out_of_the_text(label: str) -> None:
    root = drawn([label, "other"], [[1, 0], [1, 1]])
    assert root.find(f".//{SVG}script") is None
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg",
        "title",
        "desc",
        "rect",
        "text",
    }


def test_a_long_label_is_cut_and_its_tooltip_is_whole() -> None:
    label = "a label that is far too long for the margin of any picture"
    root = drawn([label, "b"], [[1, 0], [0, 1]])
    cut = [text for text in root.iter(f"{SVG}text") if (text.text or "").endswith("…")]
    assert len(cut) == 2  # its row and its column
    assert {text.findtext(f"{SVG}title") for text in cut} == {label}


def test_a_row_without_examples_has_no_recall() -> None:
    root = drawn(["a", "b"], [[0, 0], [1, 1]])
    assert "–" in texts(root)
    assert "50%" in texts(root)


def test_an_empty_matrix_still_draws() -> None:
    root = drawn(["a", "b"], [[0, 0], [0, 0]])
    assert tooltips(root) == {}
    assert "0 rows, 0 right" in str(root.findtext(f"{SVG}desc"))


def test_150_classes_stay_readable_and_small() -> None:
    labels = [f"class_{index:03d}" for index in range(150)]
    matrix = [[20 if i == j else int(j == i + 1) for j in range(150)] for i in range(150)]
    text = confusion_svg(labels, matrix, title="many")
    root = ET.fromstring(text)
    assert len(tooltips(root)) == 150 + 149
    assert "20" not in texts(root)  # no room for counts
    sizes = [float(size) for size in re.findall(r"font-size='([\d.]+)'", text)]
    assert min(sizes) >= 10
    assert float(str(root.get("width"))) < 2400
    assert len(text) < 200_000


def test_counts_that_do_not_fit_their_cell_are_left_to_the_tooltip() -> None:
    root = drawn(["a", "b"], [[123_456_789, 1], [0, 1]])
    assert "123456789" not in texts(root)
    assert "a → a: 123,456,789 (100.0%)" in tooltips(root)

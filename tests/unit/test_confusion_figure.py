"""The Plotly heatmap of a confusion matrix."""

import json

from service.pages.confusion_figure import confusion_figure


def test_colours_are_shares_of_rows_and_texts_are_counts() -> None:
    figure = confusion_figure(["a", "b", "c"], [[3, 1, 0], [0, 4, 0], [0, 0, 0]], title="t")
    (heatmap,) = figure["data"]
    assert heatmap["z"] == [[0.75, 0.25, 0], [0, 1.0, 0], [0, 0, 0]]
    assert heatmap["text"] == [[3, 1, 0], [0, 4, 0], [0, 0, 0]]
    assert heatmap["texttemplate"] == "%{text}"
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"  # the first class at the top


def test_labels_are_no_markup_and_stay_unique_when_their_ticks_are_cut() -> None:
    labels = ["<b>x</b> & y", "a very long label, first", "a very long label, second"]
    figure = confusion_figure(labels, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], title="<i>")
    (heatmap,) = figure["data"]
    assert heatmap["x"][0] == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert len(set(heatmap["x"])) == 3
    ticks = figure["layout"]["xaxis"]
    assert ticks["tickvals"] == heatmap["x"]
    assert ticks["ticktext"][1] == ticks["ticktext"][2] == "a very long label…"
    assert figure["layout"]["title"]["text"] == "&lt;i&gt;"


def test_many_classes_show_no_ticks_and_stay_small() -> None:
    size = 150
    matrix = [[9 * (i == j) for j in range(size)] for i in range(size)]
    figure = confusion_figure([f"class_{i}" for i in range(size)], matrix, title="t")
    assert figure["layout"]["xaxis"]["showticklabels"] is False
    assert "texttemplate" not in figure["data"][0]
    assert len(json.dumps(figure, separators=(",", ":"))) < 150_000

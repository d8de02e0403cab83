"""The confusion matrix of the Python client: counts, shares, frame, table and plot."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

from studies.handles.confusion import ConfusionMatrix
from studies.wire.trials import ConfusionAnswer


def matrix_of(labels: list[str], cells: list[list[int]]) -> ConfusionMatrix:
    answer = ConfusionAnswer(
        labels=labels,
        matrix=cells,
        split="validation",
        head="label",
        kind="multiclass",
        unit="rows",
        rows=sum(map(sum, cells)),
    )
    return ConfusionMatrix.of(answer, "tickets, trial 3, validation")


def many(count: int) -> ConfusionMatrix:
    """``count`` classes, of which each is taken for the next one in 4."""
    cells = np.eye(count, dtype=int) * 3 + np.eye(count, k=1, dtype=int)
    return matrix_of([f"kind of ticket {number}" for number in range(count)], cells.tolist())


SMALL = matrix_of(["bug", "wish", "praise"], [[6, 2, 0], [1, 1, 0], [0, 0, 0]])


def test_shares_are_of_true_labels_of_predictions_or_of_all_and_nothing_is_no_number() -> None:
    assert SMALL.normalised().tolist() == [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 0]]
    assert SMALL.normalised("predicted")[:, 1].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert SMALL.normalised("all").sum() == pytest.approx(1)
    assert matrix_of(["a", "b"], [[0, 0], [0, 0]]).normalised("all").tolist() == [[0, 0], [0, 0]]


def test_what_is_confused_most_comes_first_and_what_is_not_confused_not_at_all() -> None:
    assert SMALL.most_confused() == [("bug", "wish", 2), ("wish", "bug", 1)]
    assert SMALL.most_confused(1) == [("bug", "wish", 2)]


def test_a_frame_has_true_labels_downwards_and_predictions_across() -> None:
    frame = SMALL.to_frame()
    assert frame.loc["bug", "wish"] == 2
    assert (frame.index.name, frame.columns.name) == ("true", "predicted")


def test_a_table_shows_labels_as_text_and_shades_shares() -> None:
    shown = matrix_of(["<i>a</i>", "b"], [[3, 1], [0, 4]])._repr_html_()
    assert "<i>" not in shown
    assert "&lt;i&gt;a&lt;/i&gt;" in shown
    assert '<td style="background: rgba(66, 146, 198, 0.25)">1</td>' in shown


def test_a_table_of_many_classes_is_that_of_the_worst_confusions() -> None:
    shown = many(77)._repr_html_()
    assert "77 labels; confused most" in shown
    assert shown.count("<tr>") == 11
    assert "<td>kind of ticket 0</td><td>kind of ticket 1</td><td>1</td>" in shown


@pytest.mark.parametrize("count", [2, 8, 77])
def test_a_plot_names_every_class_legibly_however_many_there_are(count: int) -> None:
    axes = many(count).plot()
    figure = axes.figure
    assert isinstance(figure, Figure)
    try:
        figure.canvas.draw()
        for axis in (axes.xaxis, axes.yaxis):
            names = [label.get_text() for label in axis.get_ticklabels()]
            assert names == [f"kind of ticket {number}" for number in range(count)]
            boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
            overlaps = [a.overlaps(b) for a, b in pairwise(boxes)]
            assert not any(overlaps)
            whole = figure.bbox
            assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)
        # With few classes the counts stand in the cells, those of zero left out.
        assert len(axes.texts) == (0 if count == 77 else 2 * count - 1)
    finally:
        pyplot.close(figure)


def test_a_plot_goes_where_it_is_told_and_takes_a_dollar_for_a_dollar() -> None:
    figure = Figure()
    axes = figure.subplots()
    matrix = matrix_of(["$a", "b$"], [[1, 0], [0, 1]])
    assert matrix.plot(axes, by="all") is axes
    figure.canvas.draw()  # a formula that cannot be set would raise
    assert pyplot.get_fignums() == []

"""Markdown notes: whole tables, and no markup from labels."""

from service.pages.notes import (
    ShownMatrix,
    class_scores,
    confusion_table,
    escaped,
    failure_note,
    largest_confusions,
    scores,
    study_note,
    trial_note,
)
from studies.wire.trials import ClassScore

IMAGE = "/v1/studies/01aa/trials/3/confusion-matrix?format=svg"


def cells(table: str) -> list[list[str]]:
    """A Markdown table's cells without the rule line."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return [lines[0], *lines[2:]]


def score(label: str, f1: float = 0.5) -> ClassScore:
    return ClassScore(label=label, precision=0.25, recall=0.75, f1=f1, support=8)


def test_a_small_matrix_is_a_whole_table_with_the_recall() -> None:
    table = confusion_table(["a", "b"], [[3, 1], [0, 0]])
    assert cells(table)[1:] == [["a", "**3**", "1", "75%"], ["b", "·", "**0**", "–"]]
    assert table.splitlines()[1] == "| :-- | --: | --: | --: |"


def test_the_largest_confusions_come_first_with_their_share_of_the_class() -> None:
    matrix = [[6, 2, 0], [5, 5, 0], [2, 0, 2]]
    assert cells(largest_confusions(["a", "b", "c"], matrix))[1:] == [
        ["b", "a", "5", "50%"],
        ["a", "b", "2", "25%"],
        ["c", "a", "2", "50%"],
    ]


def test_no_confusion_is_said_in_words() -> None:
    assert largest_confusions(["a", "b"], [[1, 0], [0, 2]]) == "Nothing was confused."


def test_fifteen_confusions_at_most() -> None:
    size = 20
    matrix = [[1 + i if j == (i + 1) % size else 0 for j in range(size)] for i in range(size)]
    rows = cells(largest_confusions([f"c{i}" for i in range(size)], matrix))[1:]
    assert [row[2] for row in rows] == [str(count) for count in range(20, 5, -1)]


def test_splits_share_a_table_and_a_missing_metric_is_a_dash() -> None:
    table = scores({"validation": {"accuracy": 0.5, "loss": 1.25}, "test": {"accuracy": 0.25}})
    assert cells(table)[1:] == [["validation", "0.5000", "1.2500"], ["test", "0.2500", "–"]]


def test_many_classes_are_cut_to_those_with_the_lowest_f1() -> None:
    text = class_scores([score(f"c{i}", f1=1 - i / 100) for i in range(20)])
    assert text.startswith("### The 15 classes with the lowest F1")
    assert "c19 |" in text
    assert "c4 |" not in text


def test_labels_are_text_and_nothing_else() -> None:
    assert escaped("a|b") == r"a\|b"
    assert escaped("`x` *y* _z_ <b> [l](u)") == r"\`x\` \*y\* \_z\_ \<b\> \[l\](u)"
    assert escaped("two\nlines\t and  more") == "two lines and more"
    assert escaped("https://example.org $x$ a\\b") == r"https\://example.org \$x\$ a\\b"
    assert escaped(" \n") == "(empty)"
    assert escaped("x" * 50) == "x" * 39 + "…"


def test_a_label_with_bars_and_line_breaks_keeps_its_table_whole() -> None:
    labels = ["a|b\nc", "|||", "d"]
    table = confusion_table(labels, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert len(table.splitlines()) == 2 + 3
    bare = table.replace("\\|", "")
    assert {line.count("|") for line in bare.splitlines()} == {6}


def shown(labels: list[str], matrix: list[list[int]], head: str = "label") -> ShownMatrix:
    return ShownMatrix(
        head=head, kind="multiclass", unit="rows", labels=labels, matrix=matrix, image_url=IMAGE
    )


def test_the_note_of_several_heads_shows_the_matrix_of_each() -> None:
    note = trial_note(
        number=3,
        metric="heads_mean",
        value=0.5,
        metrics={"heads_mean": 0.5, "topic.accuracy": 0.75, "mood.mae": 2.0},
        matrices=[
            shown(["a", "b"], [[3, 1], [0, 4]], "topic"),
            shown(["x", "y"], [[5, 0], [2, 1]], "mood"),
        ],
        per_class=[score("a").model_copy(update={"head": "topic"})],
    )
    assert "| validation | 0.5000 |" in note
    assert "| validation, topic | 0.7500 |" in note
    assert "| validation, mood | 2.0000 |" in note
    assert "### Confusion matrix of topic (validation, multiclass: rows)" in note
    assert "| a | **3** | 1 | 75% |" in note
    assert "### Confusion matrix of mood (validation, multiclass: rows)" in note
    assert "| y | 2 | **1** | 33% |" in note
    assert "| topic.a | 0.250 |" in note


def test_a_trial_note_names_our_number_and_shows_the_picture_and_the_table() -> None:
    note = trial_note(
        number=3,
        metric="macro_f1",
        value=0.81236,
        metrics={"macro_f1": 0.81236},
        matrices=[shown(["a", "b"], [[3, 1], [0, 4]])],
        per_class=[score("a"), score("b")],
    )
    assert note.startswith("## Trial 3: macro_f1 0.8124\n")
    assert f"]({IMAGE})" in note
    assert "| a | **3** | 1 | 75% |" in note
    assert "| b | 0.250 | 0.750 | 0.500 | 8 |" in note


def test_a_trial_note_of_many_classes_lists_confusions_instead_of_the_matrix() -> None:
    size = 13
    matrix = [[int(j == 0) for j in range(size)] for _ in range(size)]
    note = trial_note(
        number=0,
        metric="accuracy",
        value=0.5,
        metrics={},
        matrices=[
            shown([f"c{i}" for i in range(size)], matrix),
        ],
        per_class=[],
    )
    assert "| c12 | c0 | 1 | 100% |" in note
    assert "**1**" not in note
    assert len(note) < 2_000


def test_a_failed_trials_note_says_why_in_one_harmless_paragraph() -> None:
    note = failure_note(
        number=7, attempts=3, code="trial_timeout", detail="Over 60 s: <b>lower</b> " + "x" * 600
    )
    heading, detail, attempts = note.split("\n\n")
    assert heading == "## Trial 7 failed: trial_timeout"
    assert detail.startswith("Over 60 s\\: \\<b\\>lower\\</b\\> xxx")
    assert detail.endswith("x…")
    assert len(detail) < 510
    assert attempts == "Attempts: 3.\n"
    assert failure_note(number=0, attempts=1, code="nan_loss", detail="").count("\n\n") == 1


def test_a_study_note_shows_the_best_trial_and_the_test_split_when_it_was_opened() -> None:
    def note(test_metrics: dict[str, float] | None) -> str:
        return study_note(
            metric="accuracy",
            best_number=7,
            value=0.9,
            params={"learning_rate": 0.00012345678, "batch_size": 32, "lr_schedule": "linear"},
            metrics={"accuracy": 0.9},
            test_metrics=test_metrics,
            matrices=[shown(["a", "b"], [[1, 0], [0, 1]])],
            per_class=[],
        )

    assert note(None).startswith("## Best so far: trial 7, accuracy 0.9000\n")
    assert "| 0.0001235 | 32 | linear |" in note(None)
    assert "| test |" not in note(None)
    assert "| test | 0.8500 |" in note({"accuracy": 0.85})

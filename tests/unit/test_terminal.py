"""What the command line draws: confusion matrices, tables and lines of progress."""

import io
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from service.terminal.confusion_drawing import confusion_view, fold
from service.terminal.views import duration_text, params_text, plain, trials_table
from service.terminal.watching import change_lines
from studies.wire.studies import StudyAnswer
from studies.wire.trials import ConfusionAnswer, TrialRow

LABELS = ["refund", "invoice", "login"]
MATRIX = [[8, 2, 0], [1, 9, 0], [0, 0, 5]]


def confusion(labels: list[str], matrix: list[list[int]]) -> ConfusionAnswer:
    return ConfusionAnswer(
        labels=labels,
        matrix=matrix,
        split="validation",
        head="label",
        kind="multiclass",
        unit="rows",
        rows=sum(map(sum, matrix)),
    )


def drawn(answer: ConfusionAnswer, width: int, **console: Any) -> str:
    output = io.StringIO()
    Console(width=width, file=output, **console).print(confusion_view(answer, width))
    return output.getvalue()


def cells(line: str) -> list[str]:
    return line.split()


def test_a_row_holds_a_true_label_its_counts_and_its_recall() -> None:
    lines = drawn(confusion(LABELS, MATRIX), 80).splitlines()
    assert lines[0].strip() == "validation: 25 rows, 88.0% right"
    assert cells(lines[1]) == ["true", "\\", "predicted", *LABELS, "recall"]
    assert cells(lines[3]) == ["refund", "8", "2", "·", "80%"]
    assert cells(lines[4]) == ["invoice", "1", "9", "·", "90%"]
    assert cells(lines[5]) == ["login", "·", "·", "5", "100%"]


def test_a_label_without_a_row_has_no_recall() -> None:
    lines = drawn(confusion(LABELS, [[1, 0, 0], [0, 1, 0], [0, 0, 0]]), 80).splitlines()
    assert cells(lines[5]) == ["login", "·", "·", "·", "–"]


def test_folding_keeps_the_classes_with_the_most_confusions_and_every_count() -> None:
    # Confusions: a 1+0, b 0+6, c 6+1, d 0+0 (a row off the diagonal plus its column).
    matrix = [[9, 0, 1, 0], [0, 9, 0, 0], [0, 6, 3, 0], [0, 0, 0, 7]]
    folded = fold(["a", "b", "c", "d"], matrix, keep=2)
    assert folded.labels == ("b", "c", "+ 2 more classes")
    assert folded.matrix == ((9, 0, 0), (6, 3, 0), (0, 1, 16))
    assert folded.folded == 2


def test_folding_nothing_changes_nothing() -> None:
    folded = fold(LABELS, MATRIX, keep=3)
    assert folded.labels == tuple(LABELS)
    assert [list(row) for row in folded.matrix] == MATRIX
    assert folded.folded == 0


def test_seventy_seven_classes_are_folded_to_twelve_and_a_rest() -> None:
    text = drawn(confusion(*many(77)), 200)
    assert "+ 65 more classes" in text
    assert "the classes confused most are shown" in text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("classes", [2, 8, 13, 77])
def test_the_drawing_cuts_no_number_in_any_terminal(width: int, classes: int) -> None:
    labels, matrix = many(classes)
    text = drawn(confusion(labels, matrix), width)
    # Label names may be cut; a cut number would show as an ellipsis outside of the first column.
    for line in text.splitlines():
        assert len(line) <= width
        assert "…" not in line[max(8, width // 3) :]


def many(classes: int) -> tuple[list[str], list[list[int]]]:
    rng = random.Random(classes)
    matrix = [
        [rng.choice([0, 0, 1, 3]) if i != j else rng.randint(20, 60) for j in range(classes)]
        for i in range(classes)
    ]
    return [f"class_{i}" for i in range(classes)], matrix


def test_colours_are_drawn_for_a_terminal_and_left_out_without_colours() -> None:
    answer = confusion(LABELS, MATRIX)
    terminal = {"force_terminal": True, "legacy_windows": False}
    assert "\x1b[" in drawn(answer, 80, color_system="truecolor", **terminal)
    assert "48;" not in drawn(answer, 80, no_color=True, **terminal)


def test_a_label_can_neither_steer_the_terminal_nor_be_read_as_markup() -> None:
    answer = confusion(["[bold]a", "b\x1b[31m\n"], [[1, 0], [0, 1]])
    text = drawn(answer, 80)
    assert "[bold]a" in text
    assert "b·[31m·" in text
    assert "\x1b" not in text


def test_plain_text_keeps_letters_of_every_language() -> None:
    assert plain("größe 日本語\t").plain == "größe 日本語·"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_durations_are_read_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_params_are_short_and_nothing_is_a_dash() -> None:
    assert params_text({"learning_rate": 0.00012345, "batch_size": 32}) == (
        "learning_rate=0.000123  batch_size=32"
    )
    assert params_text(None) == "–"


def trial(number: int, state: str, **changes: Any) -> TrialRow:
    fields: dict[str, Any] = {
        "number": number,
        "state": state,
        "attempt": 0 if state == "queued" else 1,
        "params": None if state == "queued" else {"batch_size": 16},
        "value": None,
        "best_epoch": None,
        "error": None,
        "metrics": {},
        "epoch": None,
        "started_at": None,
        "finished_at": None,
    }
    return TrialRow.model_validate({**fields, **changes})


def study() -> StudyAnswer:
    return StudyAnswer.model_validate(
        {
            "id": "s1",
            "name": "tickets",
            "state": "running",
            "trials": {},
            "best": None,
            "test": None,
            "progress": {"done": 1, "total": 3},
            "error": None,
            "created_at": datetime.now(UTC),
            "started_at": None,
            "finished_at": None,
            "labels": {},
            "dataset": "d1",
            "model": "scratch:tiny",
            "task": "single_label",
            "objective": {"metric": "macro_f1", "direction": "maximize"},
            "spec": {},
        }
    )


def test_every_start_and_end_of_a_trial_is_one_line() -> None:
    before = {0: trial(0, "running"), 1: trial(1, "queued"), 2: trial(2, "queued")}
    fault = {"code": "nan_loss", "detail": "The loss is no number.\nLower the rate."}
    after = [
        trial(0, "completed", value=0.8125),
        trial(1, "failed", error=fault),
        trial(2, "running"),
    ]
    assert change_lines(before, after, study()) == [
        "trial 0 completed  macro_f1 0.8125",
        "trial 1 started  batch_size=16",
        "trial 1 failed  nan_loss: The loss is no number.",
        "trial 2 started  batch_size=16",
    ]
    assert change_lines({row.number: row for row in after}, after, study()) == []


def test_a_trial_starts_once_its_parameters_are_known() -> None:
    claimed = trial(0, "running", params=None)
    assert change_lines({}, [claimed], study()) == []
    asked = [trial(0, "running")]
    assert change_lines({0: claimed}, asked, study()) == ["trial 0 started  batch_size=16"]


def test_another_attempt_is_told_as_one() -> None:
    before = {0: trial(0, "running")}
    after = [trial(0, "running", attempt=2)]
    assert change_lines(before, after, study()) == [
        "trial 0 started again (attempt 2)  batch_size=16"
    ]


def test_the_best_trial_carries_a_star_and_each_parameter_a_column() -> None:
    rows = [
        trial(0, "completed", value=0.5, params={"batch_size": 16}),
        trial(1, "pruned", value=0.25, params={"batch_size": 32, "max_length": 64}),
    ]
    output = io.StringIO()
    Console(width=120, file=output).print(trials_table(rows, "macro_f1", best=0))
    lines = output.getvalue().splitlines()
    assert cells(lines[0]) == [
        "#",
        "state",
        "macro_f1",
        "epoch",
        "batch_size",
        "max_length",
        "error",
    ]
    assert cells(lines[2]) == ["0", "*", "completed", "0.5000", "–", "16", "–"]
    assert cells(lines[3]) == ["1", "pruned", "0.2500", "–", "32", "64"]

"""What the command line draws: confusion matrices, tables and lines of progress."""

import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from service.terminal.confusion_drawing import confusion_view, fold
from service.terminal.views import (
    bytes_text,
    duration_text,
    params_text,
    plain,
    study_view,
    trial_view,
    trials_table,
)
from service.terminal.watching import change_lines, study_lines
from studies.wire.studies import StudyAnswer
from studies.wire.trials import ConfusionAnswer, TrialAnswer, TrialRow

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
    return shown(confusion_view(answer, width), width, **console)


def shown(view: RenderableType, width: int = 200, **console: Any) -> str:
    output = io.StringIO()
    Console(width=width, file=output, **console).print(view)
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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (123_456_789_012, "123.5 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_bytes_are_read_in_their_largest_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


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


def study(**changes: Any) -> StudyAnswer:
    return StudyAnswer.model_validate(
        {
            "id": "s1",
            "name": "tickets",
            "state": "running",
            "pause": None,
            "trials": {},
            "best": None,
            "test": None,
            "progress": {"done": 1, "total": 3},
            "disk_bytes": 0,
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
            **changes,
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
    lines = shown(trials_table(rows, "macro_f1", best=0)).splitlines()
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


def test_a_column_of_attempts_appears_once_a_trial_took_more_than_one() -> None:
    rows = [trial(0, "running", attempt=3), trial(1, "running"), trial(2, "queued")]
    lines = shown(trials_table(rows, "macro_f1")).splitlines()
    assert cells(lines[0])[-2:] == ["attempt", "error"]
    assert [cells(line)[-1] for line in lines[2:]] == ["3", "1", "–"]


def test_a_pause_is_told_once_with_what_ends_it_and_so_are_resume_and_extend() -> None:
    running = study()
    drained = study(state="paused", pause="drain")
    preempted = study(state="paused", pause="preempt")
    said = study_lines(running, drained)
    assert said == [
        "paused: no new trials start, running trials finish; 'bertune resume s1' goes on"
    ]
    assert study_lines(None, drained) == said
    assert study_lines(drained, drained) == []
    assert "running trials are taken back" in study_lines(drained, preempted)[0]
    assert study_lines(preempted, running) == ["resumed"]
    assert study_lines(drained, study(state="completed")) == []
    extended = study(progress={"done": 1, "total": 13})
    assert study_lines(running, extended) == ["extended to 13 trials"]


def test_a_study_shows_its_pause_and_what_it_takes_on_the_disk() -> None:
    text = shown(study_view(study(state="paused", pause="drain", disk_bytes=2_300_000)))
    assert "paused  no new trials start, running trials finish" in text
    assert "2.3 MB of models" in text
    assert "disk" not in shown(study_view(study()))


def attempts(*fields: dict[str, Any]) -> TrialAnswer:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    common: dict[str, Any] = {
        "worker": "gpu-1",
        "error": None,
        "problems": [],
        "resumed_from_epoch": None,
        "started_at": began,
        "ended_at": began + timedelta(seconds=42),
    }
    tries = [{"attempt": n, **common, **changes} for n, changes in enumerate(fields, start=1)]
    row = trial(7, "completed", attempt=len(fields)).model_dump()
    own = {"epochs": [], "per_class": [], "worker": "gpu-1", "attempts": tries}
    return TrialAnswer.model_validate({**row, **own})


def test_a_trial_tells_what_happened_to_each_of_its_attempts() -> None:
    text = shown(
        trial_view(
            attempts(
                {"outcome": "lost", "error": {"code": "lost", "detail": "the lease lapsed"}},
                {"outcome": "completed", "resumed_from_epoch": 2, "problems": ["disk_full: /c"]},
            )
        )
    )
    lines = [" ".join(cells(line)) for line in text.splitlines()]
    assert "1 gpu-1 lost 42 s lost: the lease lapsed" in lines
    assert "2 gpu-1 completed 42 s resumed, epochs done: 2; disk_full: /c" in lines


def test_a_single_attempt_is_told_only_if_something_happened() -> None:
    assert "gpu-1" not in shown(trial_view(attempts({"outcome": "completed"})))
    troubled = attempts({"outcome": "completed", "problems": ["checkpoint_failed: no file"]})
    assert "checkpoint_failed: no file" in shown(trial_view(troubled))

"""What receivers are sent: the event itself, or a sentence that people understand."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from model.errors import InputError
from service.webhooks.rendering import FIELDS, render
from studies.wire.events import EVENT_TYPES, EventAnswer


def made(kind: str, /, *, trial: int | None = None, **data: Any) -> EventAnswer:
    return EventAnswer(
        id=7,
        type=kind,
        study_id=None if kind.startswith(("schedule", "webhook")) else "s1",
        study=None if kind.startswith(("schedule", "webhook")) else "tickets",
        trial=trial,
        data=data,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def slack(event: EventAnswer, text: str | None = None) -> str:
    return str(json.loads(render("slack", text, event).text)["text"])


def test_json_is_the_event_as_streams_tell_it() -> None:
    event = made("study.completed", best=4, value=0.91)
    body = render("json", None, event)
    assert body.content_type == "application/json"
    assert EventAnswer.model_validate_json(body.text) == event


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            made("study.completed", best=4, value=0.912345),
            "tickets completed; best is trial 4 with 0.9123.",
        ),
        (
            made("study.best", trial=2, number=2, metric="macro_f1", value=0.5),
            "tickets: trial 2 is the best so far with macro_f1 0.5.",
        ),
        (made("trial.pruned", trial=3, number=3), "tickets: trial 3 pruned."),
        (made("trial.failed", number=None, kind="evaluate"), "tickets: evaluation failed."),
        (made("study.test_opened", opened=1), "tickets: test opened."),
        (
            made("schedule.skipped", schedule="nightly", fire_time="t", reason="overlap"),
            "Schedule nightly skipped its fire of t: overlap.",
        ),
    ],
)
def test_each_event_has_a_sentence(event: EventAnswer, sentence: str) -> None:
    assert slack(event) == sentence


def test_no_type_and_no_missing_field_makes_a_sentence_fail() -> None:
    for kind in EVENT_TYPES:
        assert slack(made(kind)).endswith(".")


def test_a_text_of_ones_own_takes_every_field() -> None:
    text = "{study} {{" + "".join(f"{{{field}}}" for field in FIELDS) + "}}"
    body = render("text", text, made("trial.failed", trial=0, number=0, code="nan_loss"))
    assert body.content_type.startswith("text/plain")
    assert body.text.startswith("tickets {tickets: trial 0 failed: nan_loss.trial.failed")
    assert body.text.endswith("2026-01-02T03:04:05.000Z}")


def test_what_users_named_cannot_speak_slacks_own_language() -> None:
    event = made("study.completed").model_copy(update={"study": "<!channel> & co"})
    assert slack(event, "*{study}*") == "*&lt;!channel&gt; &amp; co*"


def test_a_field_that_a_value_only_looks_like_is_not_filled() -> None:
    event = made("schedule.skipped", reason="{study_id} {nope}", schedule="a", fire_time="b")
    assert "{study_id} {nope}" in slack(event)


@pytest.mark.parametrize("text", ["{nope}", "{study.__class__}", "{", "}", "{}", "{study!r}"])
def test_a_text_with_anything_else_in_braces_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no field") as caught:
        render("text", text, made("study.best"))
    assert caught.value.code == "invalid_template"

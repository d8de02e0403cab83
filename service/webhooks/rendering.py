"""What a webhook is sent: an event as JSON, or as a sentence for people."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.braces import fill_braces
from studies.wire.base import iso_z
from studies.wire.events import EventAnswer

FIELDS = (
    "sentence",
    "type",
    "study",
    "study_id",
    "trial",
    "value",
    "metric",
    "reason",
    "schedule",
    "time",
)
"""What a text may name; empty where an event has no such thing."""
_SENTENCES = {
    "study.completed": "{study} completed; best is trial {best} with {value}.",
    "study.failed": "{study} failed: {code}.",
    "study.best": "{study}: trial {trial} is the best so far with {metric} {value}.",
    "study.paused": "{study} was paused ({mode}).",
    "study.extended": "{study} was extended by {add_trials} trials.",
    "study.trials_cancelled": "{study}: {count} queued trials were cancelled: {reason}.",
    "trial.completed": "{study}: trial {trial} completed with {value}.",
    "trial.failed": "{study}: trial {trial} failed: {code}.",
    "schedule.submitted": "Schedule {schedule} submitted {study}.",
    "schedule.skipped": "Schedule {schedule} skipped its fire of {fire_time}: {reason}.",
    "schedule.champion_first": "Schedule {schedule} has a champion. {reason}",
    "schedule.champion_promoted": "Schedule {schedule} has a new champion. {reason}",
    "schedule.champion_kept": "Schedule {schedule} keeps its champion. {reason}",
    "webhook.disabled": "Webhook {webhook} was switched off. {reason}",
    "webhook.test": "Webhook {webhook} works.",
}


@dataclass(frozen=True, slots=True)
class Body:
    content_type: str
    text: str


def render(template: str, text: str | None, event: EventAnswer) -> Body:
    """The body for one event, by a `studies.wire.webhooks.Template`.

    Raises `InputError` ``invalid_template``; a text that is right for one event is for all.
    """
    if template == "json":
        return Body("application/json", event.model_dump_json())
    if template == "slack":
        filled = _fill(text or "{sentence}", event, _slack_text)
        return Body("application/json", json.dumps({"text": filled}))
    return Body("text/plain; charset=utf-8", _fill(text or "{sentence}", event, str))


def _fill(text: str, event: EventAnswer, quoted: Callable[[str], str]) -> str:
    values = {
        **{key: _shown(value) for key, value in event.data.items()},
        "type": event.type,
        "study": event.study or "",
        "study_id": event.study_id or "",
        "trial": _shown(_trial(event)),
        "time": iso_z(event.created_at),
    }
    values["sentence"] = _sentence(event, values)
    chosen = {field: quoted(values.get(field, "")) for field in FIELDS}
    return fill_braces(text, chosen, ("text",))


def _trial(event: EventAnswer) -> Any:
    """The trial that an event is about, or that its study or schedule names."""
    named = (event.trial, event.data.get("number"), event.data.get("best"))
    return next((number for number in named if number is not None), None)


def _sentence(event: EventAnswer, values: dict[str, str]) -> str:
    pattern = _SENTENCES.get(event.type)
    is_evaluation = event.data.get("kind") == "evaluate"
    if pattern is None or is_evaluation:
        family, _, what = event.type.replace("_", " ").partition(".")
        trial = f" trial {values['trial']}" if family == "trial" else ""
        trial = " evaluation" if is_evaluation else trial
        return f"{values['study'] or family}:{trial} {what}."
    known = {**dict.fromkeys(_names(pattern), ""), **values}
    return fill_braces(pattern, known, ()).rstrip()


def _names(pattern: str) -> list[str]:
    return [part.partition("}")[0] for part in pattern.split("{")[1:]]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _slack_text(value: str) -> str:
    """Slack takes these three for its own."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Finds what a person named on the server; of a name that is not there, says what was near."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from service.terminal.suggestions import did_you_mean
from studies.api import Api
from studies.connection import ApiError
from studies.wire.datasets import DatasetAnswer
from studies.wire.schedules import ScheduleAnswer
from studies.wire.studies import StudyAnswer
from studies.wire.trials import TrialAnswer
from studies.wire.webhooks import WebhookAnswer

Found = TypeVar("Found")

NEWEST = 500
"""As many studies are looked through for one of a like name."""


def find_study(client: Api, wanted: str) -> StudyAnswer:
    """A study by its id, else the newest of this name."""
    return _find(
        lambda: client.study(wanted),
        lambda: [name for study in client.studies(limit=NEWEST) for name in (study.name, study.id)],
        wanted,
        "unknown_study",
        f"No study has the id or name {wanted!r}.",
        "'bertune studies' lists them.",
    )


def find_trial(client: Api, study: StudyAnswer, number: int) -> TrialAnswer:
    return _find(
        lambda: client.trial(study.id, number),
        list,
        str(number),
        "unknown_trial",
        f"{study.name} ({study.id}) has no trial {number}; it has 0 to {study.progress.total - 1}.",
        f"'bertune trials {study.id}' lists them.",
    )


def find_dataset(client: Api, wanted: str) -> DatasetAnswer:
    """A data set by its id, else the newest of this name."""

    def known() -> list[str]:
        return [name for dataset in client.datasets() for name in (dataset.name, dataset.id)]

    def look() -> DatasetAnswer:
        try:
            return client.dataset(wanted)
        except ApiError as error:
            named = [found for found in client.datasets() if found.name == wanted]
            if not (_is_unknown(error) and named):
                raise
            return named[0]

    return _find(
        look,
        known,
        wanted,
        "unknown_dataset",
        f"No data set has the id or name {wanted!r}.",
        "'bertune dataset list' lists them.",
    )


def find_schedule(client: Api, wanted: str) -> ScheduleAnswer:
    """A schedule by its name, else by its id."""
    return _find(
        lambda: client.schedule(wanted),
        lambda: [schedule.spec.name for schedule in client.schedules()],
        wanted,
        "unknown_schedule",
        f"No schedule has the name or id {wanted!r}.",
        "'bertune schedule list' lists them.",
    )


def find_webhook(client: Api, wanted: str) -> WebhookAnswer:
    """A webhook by its name, else by its id."""
    return _find(
        lambda: client.webhook(wanted),
        lambda: [webhook.name for webhook in client.webhooks()],
        wanted,
        "unknown_webhook",
        f"No webhook has the name or id {wanted!r}.",
        "'bertune webhook list' lists them.",
    )


def _find(
    look: Callable[[], Found],
    known: Callable[[], Sequence[str]],
    wanted: str,
    code: str,
    absent: str,
    next_step: str,
) -> Found:
    try:
        return look()
    except ApiError as error:
        if not _is_unknown(error):
            raise
        near = did_you_mean(wanted, known())
        raise ApiError(404, code, f"{absent}{near} {next_step}") from error


def _is_unknown(error: ApiError) -> bool:
    """404, or 422 for what no id looks like; but not of a server that is none of ours."""
    return error.status in (404, 422) and error.code != "not_bertune"

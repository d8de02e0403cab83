"""Every call of the API that a person needs, with typed answers, blocking or awaited.

with Api() as api:
    data = api.upload_dataset("tickets.csv")
    study = api.submit(StudySpec(name="tickets", dataset=data.id))
    print(api.wait(study.id).best)

To add a call, add one method to the class of its kind, of the steps in `studies.asking`; `Api`,
`AsyncApi` and their types follow. A call that is made of others takes their steps from `CALLS`, as
in ``yield from CALLS.trials(study_id)``; on ``self`` there is nothing to run them.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel

from model.config import Split
from studies.asking import (
    delete,
    download_file,
    download_folder,
    get,
    pages,
    part,
    patch,
    pause,
    post,
    send,
    server_address,
    tell,
)
from studies.calling import AwaitingClient, BlockingClient, Describing, Steps, call
from studies.connection import HUB_TIMEOUT, UPLOAD_TIMEOUT, ApiError, ClientError, UnreachableError
from studies.following import AwaitingEvents, BlockingEvents, EventsMissedWarning
from studies.spec import StudySpec
from studies.states import STUDY_ENDED, StudyState, TrialState
from studies.transfer import CountedFile, CountedFiles, OnBytes
from studies.wire.datasets import DatasetAnswer
from studies.wire.leases import WorkerAnswer
from studies.wire.login import LoginLink
from studies.wire.schedules import ScheduleAnswer, ScheduleCheck, ScheduleRun, ScheduleSpec
from studies.wire.sources import HubDataset
from studies.wire.studies import PauseMode, StudyAnswer, ValidationAnswer
from studies.wire.trials import ConfusionAnswer, TrialAnswer, TrialRow
from studies.wire.webhooks import (
    DeliveryAnswer,
    DeliveryState,
    NewWebhook,
    WebhookAnswer,
    WebhookSpec,
)

__all__ = [
    "CALLS",
    "Api",
    "ApiError",
    "AsyncApi",
    "ClientError",
    "EventsMissedWarning",
    "UnreachableError",
    "WaitTimeoutError",
]

MATRIX_FORMS = ("csv", "svg", "json")
OUTAGE_S = 60.0
"""How long `Api.wait` bears with a server that went away."""


class WaitTimeoutError(ClientError):
    """A study did not end within the time given; it goes on."""


class DatasetCalls:
    """Data sets: upload and read."""

    @call
    def upload_dataset(
        self,
        train: Path | str,
        validation: Path | str | None = None,
        test: Path | str | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        on_bytes: OnBytes | None = None,
    ) -> Steps[DatasetAnswer]:
        """Upload local files. Equal content gives the same data set again.

        ``on_bytes(sent, total)`` is called while they go. ``options`` are those of
        `model.config.DataOptions`. Raises `OSError` for a file that cannot be read.
        """
        paths = {"train": train, "validation": validation, "test": test}
        form = {"name": name, "options": json.dumps(dict(options)) if options else None}
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(Path(path).open("rb"))
                for split, path in paths.items()
                if path is not None
            }

            counted = None if on_bytes is None else CountedFiles(files, on_bytes)

            def parts() -> dict[str, Any]:
                for file in files.values():
                    file.seek(0)
                return {
                    split: (
                        Path(file.name).name,
                        file if counted is None else CountedFile(file, counted),
                    )
                    for split, file in files.items()
                }

            return (
                yield from post(
                    DatasetAnswer,
                    "/v1/datasets",
                    repeatable=True,
                    files=parts,
                    data={field: value for field, value in form.items() if value is not None},
                    timeout=UPLOAD_TIMEOUT,
                )
            )

    @call
    def add_hub_dataset(
        self,
        hub: str,
        *,
        config: str | None = None,
        revision: str = "main",
        splits: Mapping[Split, str] | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Steps[DatasetAnswer]:
        """Have the server read a data set of the Hugging Face hub, as it is at a revision now.

        ``splits`` are the hub's names of the splits, where they are not the usual ones; the answer
        has the commit in ``origin``. Raises `pydantic.ValidationError` for what is no name.
        """
        source = HubDataset(
            hub=hub,
            config=config,
            revision=revision,
            splits=dict(splits or {}),
            options=dict(options or {}),
            name=name,
        )
        return post(
            DatasetAnswer,
            "/v1/datasets",
            repeatable=True,
            json=source.model_dump(mode="json"),
            timeout=HUB_TIMEOUT,
        )

    @call
    def datasets(self) -> Steps[list[DatasetAnswer]]:
        return pages(DatasetAnswer, "/v1/datasets")

    @call
    def dataset(self, dataset_id: str) -> Steps[DatasetAnswer]:
        return get(DatasetAnswer, f"/v1/datasets/{part(dataset_id)}")


class StudyCalls:
    """Studies: submit, steer and follow."""

    @call
    def validate(self, spec: StudySpec | Mapping[str, Any]) -> Steps[ValidationAnswer]:
        """The checks of `submit` and what they find; nothing is stored."""
        return post(ValidationAnswer, "/v1/studies/validate", repeatable=True, json=_document(spec))

    @call
    def submit(
        self, spec: StudySpec | Mapping[str, Any], idempotency_key: str | None = None
    ) -> Steps[StudyAnswer]:
        """Queue a study. The same ``idempotency_key`` gives the same study, never a second one;
        by default each call has its own, which makes repeated tries safe."""
        return post(
            StudyAnswer,
            "/v1/studies",
            repeatable=True,
            json=_document(spec),
            headers=_once(idempotency_key),
        )

    @call
    def studies(
        self, state: StudyState | None = None, label: str | None = None, limit: int | None = None
    ) -> Steps[list[StudyAnswer]]:
        """Studies, newest first; ``label`` is ``key:value``, ``limit`` None takes them all."""
        params = {"state": state, "label": label}
        wanted = {name: value for name, value in params.items() if value}
        return pages(StudyAnswer, "/v1/studies", wanted, limit=limit)

    @call
    def study(self, id_or_name: str) -> Steps[StudyAnswer]:
        """A study by its id, else the newest of this name."""
        try:
            return (yield from _study(id_or_name))
        except ApiError as error:
            # 422: no id looks like this, but a name may.
            if error.status not in (404, 422):
                raise
            studies = yield from pages(
                StudyAnswer, "/v1/studies", until=lambda study: study.name == id_or_name
            )
            if studies and studies[-1].name == id_or_name:
                return studies[-1]
            raise ApiError(
                404, "not_found", f"No study has the id or name {id_or_name!r}."
            ) from error

    @call
    def cancel(self, study_id: str) -> Steps[StudyAnswer]:
        """Stop a study: queued trials are dropped, running ones stop at their next report."""
        return post(StudyAnswer, f"/v1/studies/{part(study_id)}/cancel")

    @call
    def pause(self, study_id: str, mode: PauseMode = "drain") -> Steps[StudyAnswer]:
        """Start no more trials of a study until `resume`. Running ones finish (``drain``), or save
        a checkpoint and go back to the queue (``preempt``). Another mode replaces the first."""
        path = f"/v1/studies/{part(study_id)}/pause"
        return post(StudyAnswer, path, repeatable=True, json={"mode": mode})

    @call
    def resume(self, study_id: str) -> Steps[StudyAnswer]:
        """Let a paused study go on; one that is not paused is left as it is."""
        return post(StudyAnswer, f"/v1/studies/{part(study_id)}/resume", repeatable=True)

    @call
    def extend(
        self, study_id: str, add_trials: int, idempotency_key: str | None = None
    ) -> Steps[StudyAnswer]:
        """Add trials to a study that has completed, or is open. The same ``idempotency_key`` adds
        them once; by default each call has its own, which makes repeated tries safe."""
        return post(
            StudyAnswer,
            f"/v1/studies/{part(study_id)}/extend",
            repeatable=True,
            json={"add_trials": add_trials},
            headers=_once(idempotency_key),
        )

    @call
    def delete(self, study_id: str) -> Steps[None]:
        """Remove a study, its trials and its files for good; an open one is cancelled first.

        It is gone from every list at once, its files soon after. The data set stays. The study of
        a schedule's champion is refused (``is_champion``).
        """
        return delete(f"/v1/studies/{part(study_id)}")

    @call
    def wait(
        self,
        study_id: str,
        timeout_s: float | None = None,
        on_change: Callable[[StudyAnswer], object] | None = None,
        on_look: Callable[[StudyAnswer], object] | None = None,
        poll_s: float = 1.0,
    ) -> Steps[StudyAnswer]:
        """Return the study once it has completed, failed or been cancelled; a paused one is waited
        for until somebody resumes it and it ends.

        ``on_look`` sees it at every look, ``on_change`` at the first and then whenever something
        about it changed. A server that goes away for less than `OUTAGE_S` is waited for. Raises
        `WaitTimeoutError` after ``timeout_s``; the study goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        study, seen = (yield from _study(study_id)), None
        while True:
            if on_look is not None:
                yield from tell(on_look, study)
            if on_change is not None and study != seen:
                yield from tell(on_change, study)
            if study.state in STUDY_ENDED:
                return study
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{study.name} is still {study.state} after {timeout_s} s.")
            yield from pause(poll_s)
            study, seen = (yield from _patient_study(study_id)), study


class TrialCalls:
    """Trials and what they leave."""

    @call
    def trials(self, study_id: str, state: TrialState | None = None) -> Steps[list[TrialRow]]:
        """Trials by number; ``state`` None takes them all."""
        params = {"state": state} if state else {}
        return pages(TrialRow, f"/v1/studies/{part(study_id)}/trials", params)

    @call
    def trial(self, study_id: str, number: int) -> Steps[TrialAnswer]:
        return get(TrialAnswer, _trial_path(study_id, number))

    @call
    def confusion(
        self,
        study_id: str,
        number: int,
        split: str = "validation",
        kind: str | None = None,
        label: str | None = None,
        head: str | None = None,
    ) -> Steps[ConfusionAnswer]:
        """A trial's confusion matrix, rows true, columns predicted; the task's usual ``kind``
        without one. ``label`` is the class of a `per_class` one, ``head`` one of `multi_task` (the
        first without)."""
        path = f"{_trial_path(study_id, number)}/confusion-matrix"
        wanted = {"split": split, "kind": kind or "", "label": label or "", "head": head or ""}
        return get(ConfusionAnswer, path, wanted)

    @call
    def download_best(
        self, study_id: str, target: Path | str, on_bytes: OnBytes | None = None
    ) -> Steps[Path]:
        """Fetch the best trial's model into the folder ``target``, which `from_pretrained` loads.

        A ``target`` ending in ``.zip`` gets the packed model instead. Either appears whole or not
        at all. Raises `FileExistsError` where something is already, but for an empty folder.
        """
        return download_folder(f"/v1/studies/{part(study_id)}/best/model", target, on_bytes)

    @call
    def save_confusion(
        self,
        study_id: str,
        number: int,
        target: Path | str,
        split: str = "validation",
        kind: str | None = None,
        label: str | None = None,
        head: str | None = None,
    ) -> Steps[Path]:
        """Save a trial's confusion matrix as CSV, SVG or JSON, by the suffix of the new file
        ``target``. Raises `FileExistsError`, and `ValueError` for another suffix."""
        target = Path(target)
        form = target.suffix.removeprefix(".").lower()
        if form not in MATRIX_FORMS:
            raise ValueError(f"{target}: a matrix is saved as .{', .'.join(MATRIX_FORMS)}.")
        wanted = {"split": split, "kind": kind or "", "label": label or "", "head": head or ""}
        query = urlencode(wanted | {"format": form})
        path = f"{_trial_path(study_id, number)}/confusion-matrix?{query}"
        return download_file(path, target)

    @call
    def save_predictions(self, study_id: str, number: int, target: Path | str) -> Steps[Path]:
        """Save what a trial's best epoch said of each validation row, as CSV, in the new file
        ``target``. Raises `FileExistsError`."""
        return download_file(f"{_trial_path(study_id, number)}/predictions", Path(target))

    @call
    def download_model(self, study_id: str, number: int, target: Path | str) -> Steps[Path]:
        """`download_best` of a given trial, whose model must have been kept."""
        return download_folder(f"{_trial_path(study_id, number)}/artifacts/model.zip", target)


class ScheduleCalls:
    """Schedules and what became of their fires."""

    @call
    def validate_schedule(self, spec: ScheduleSpec | Mapping[str, Any]) -> Steps[ScheduleCheck]:
        """The next five fires and the study that the first would submit; nothing is stored."""
        return post(ScheduleCheck, "/v1/schedules/validate", repeatable=True, json=_document(spec))

    @call
    def add_schedule(self, spec: ScheduleSpec | Mapping[str, Any]) -> Steps[ScheduleAnswer]:
        """Save a schedule; its name must be free."""
        return post(ScheduleAnswer, "/v1/schedules", json=_document(spec))

    @call
    def schedules(self) -> Steps[list[ScheduleAnswer]]:
        """All schedules, by name."""
        return pages(ScheduleAnswer, "/v1/schedules")

    @call
    def schedule(self, id_or_name: str) -> Steps[ScheduleAnswer]:
        """A schedule by its name, else by its id."""
        named = yield from pages(ScheduleAnswer, "/v1/schedules", {"name": id_or_name}, limit=1)
        if named:
            return named[0]
        return (yield from get(ScheduleAnswer, f"/v1/schedules/{part(id_or_name)}"))

    @call
    def change_schedule(self, /, schedule_id: str, **changes: Any) -> Steps[ScheduleAnswer]:
        """Change the fields of a `ScheduleSpec` that are named; None takes one away, and a new
        `cron`, `at` or `every_s` replaces the one there was. ``enabled=False`` pauses."""
        return patch(ScheduleAnswer, f"/v1/schedules/{part(schedule_id)}", changes)

    @call
    def remove_schedule(self, schedule_id: str) -> Steps[None]:
        """Remove a schedule; the studies that it submitted stay."""
        return delete(f"/v1/schedules/{part(schedule_id)}")

    @call
    def run_schedule(
        self, schedule_id: str, idempotency_key: str | None = None
    ) -> Steps[ScheduleRun]:
        """Fire once, now; may take minutes where data are read. The answer tells what became of
        it. The same ``idempotency_key`` fires once; by default each call has its own, which makes
        repeated tries safe."""
        return post(
            ScheduleRun,
            f"/v1/schedules/{part(schedule_id)}/run",
            repeatable=True,
            headers=_once(idempotency_key),
            timeout=UPLOAD_TIMEOUT,
        )

    @call
    def schedule_runs(self, schedule_id: str, limit: int | None = None) -> Steps[list[ScheduleRun]]:
        """What became of its fires, latest first; ``limit`` None takes them all."""
        return pages(ScheduleRun, f"/v1/schedules/{part(schedule_id)}/runs", limit=limit)


class WebhookCalls:
    """Webhooks and what became of their deliveries."""

    @call
    def add_webhook(self, spec: WebhookSpec | Mapping[str, Any]) -> Steps[NewWebhook]:
        """Save a webhook; its name must be free. A secret that the server made up is in this
        answer and in no later one."""
        document = _document(spec)
        if isinstance(spec, WebhookSpec) and spec.secret is not None:
            document["secret"] = spec.secret.get_secret_value()
        return post(NewWebhook, "/v1/webhooks", json=document)

    @call
    def webhooks(self) -> Steps[list[WebhookAnswer]]:
        """All webhooks, by name."""
        return pages(WebhookAnswer, "/v1/webhooks")

    @call
    def webhook(self, id_or_name: str) -> Steps[WebhookAnswer]:
        """A webhook by its name, else by its id."""
        named = yield from pages(WebhookAnswer, "/v1/webhooks", {"name": id_or_name}, limit=1)
        if named:
            return named[0]
        return (yield from get(WebhookAnswer, _webhook_path(id_or_name)))

    @call
    def change_webhook(self, /, webhook_id: str, **changes: Any) -> Steps[NewWebhook]:
        """Change the fields of a `WebhookSpec` that are named. ``enabled=False`` switches off,
        ``secret=None`` makes up a new one, which this answer holds."""
        path = _webhook_path(webhook_id)
        return patch(NewWebhook, path, changes)

    @call
    def remove_webhook(self, webhook_id: str) -> Steps[None]:
        """Remove a webhook with its deliveries."""
        return delete(_webhook_path(webhook_id))

    @call
    def test_webhook(self, webhook_id: str) -> Steps[DeliveryAnswer]:
        """Send it an event `webhook.test`, once, now; the answer tells what came of it."""
        return post(DeliveryAnswer, f"{_webhook_path(webhook_id)}/test")

    @call
    def webhook_deliveries(
        self, webhook_id: str, state: DeliveryState | None = None, limit: int | None = None
    ) -> Steps[list[DeliveryAnswer]]:
        """Its deliveries with their attempts, newest first; ``limit`` None takes them all."""
        path = f"{_webhook_path(webhook_id)}/deliveries"
        return pages(DeliveryAnswer, path, {"state": state} if state else {}, limit=limit)

    @call
    def redeliver(self, webhook_id: str, delivery_id: str) -> Steps[DeliveryAnswer]:
        """Send a delivery once more, under its id."""
        path = f"{_webhook_path(webhook_id)}/deliveries/{part(delivery_id)}/redeliver"
        return post(DeliveryAnswer, path)


class AccessCalls:
    """Who trains, and who may."""

    @call
    def ready(self) -> Steps[None]:
        """Return if a server answers and its database does; the only call that needs no key."""
        yield from send("GET", "/readyz", repeatable=True)

    @call
    def workers(self) -> Steps[list[WorkerAnswer]]:
        return pages(WorkerAnswer, "/v1/workers")

    @call
    def login_link(self) -> Steps[str]:
        """The full address that logs one browser in, once, within ten minutes."""
        link = yield from post(LoginLink, "/v1/login-links")
        return (yield from server_address()) + link.url


class Calls(DatasetCalls, StudyCalls, TrialCalls, ScheduleCalls, WebhookCalls, AccessCalls):
    """Every call raises `ApiError` when the server refuses and `UnreachableError` when none
    answers. Short outages are waited out where a repeated request changes nothing."""


class Api(Calls, BlockingEvents, BlockingClient):
    """Calls that return once they are answered, and streams of events to iterate over."""


class AsyncApi(Calls, AwaitingEvents, AwaitingClient):
    """The same calls, to be awaited, and streams for ``async for``."""


class _Described(Calls, Describing):
    """The same calls as steps of others."""


CALLS = _Described()


def _study(study_id: str) -> Steps[StudyAnswer]:
    return get(StudyAnswer, f"/v1/studies/{part(study_id)}")


def _patient_study(study_id: str) -> Steps[StudyAnswer]:
    """The study, even when the server is away for a while: it may be restarting."""
    until = time.monotonic() + OUTAGE_S
    while True:
        try:
            return (yield from _study(study_id))
        except UnreachableError:
            if time.monotonic() >= until:
                raise
        yield from pause(1.0)


def _document(spec: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, BaseModel) else dict(spec)


def _once(idempotency_key: str | None) -> dict[str, str]:
    """The header under which a repeated request counts once."""
    return {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}


def _webhook_path(webhook_id: str) -> str:
    return f"/v1/webhooks/{part(webhook_id)}"


def _trial_path(study_id: str, number: int) -> str:
    return f"/v1/studies/{part(study_id)}/trials/{number}"

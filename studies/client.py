"""The Python client: every call of the API that a person needs, with typed answers.

with Client() as client:
    data = client.upload_dataset("tickets.csv")
    study = client.submit(StudySpec(name="tickets", dataset=data.id))
    print(client.wait(study.id).best)
"""

import json
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from studies.connection import (
    UPLOAD_TIMEOUT,
    ApiError,
    ClientError,
    Connection,
    UnreachableError,
)
from studies.spec import StudySpec
from studies.states import STUDY_ENDED, StudyState
from studies.wire.base import Answer
from studies.wire.datasets import DatasetAnswer
from studies.wire.leases import WorkerAnswer
from studies.wire.login import LoginLink
from studies.wire.studies import PauseMode, StudyAnswer, ValidationAnswer
from studies.wire.trials import ConfusionAnswer, TrialAnswer, TrialRow

__all__ = ["ApiError", "Client", "ClientError", "UnreachableError", "WaitTimeoutError"]

AnswerType = TypeVar("AnswerType", bound=Answer)
PAGE_LIMIT = 500
OUTAGE_S = 60.0
"""How long `Client.wait` bears with a server that went away."""


class WaitTimeoutError(ClientError):
    """A study did not end within the time given; it goes on."""


class Client:
    """A server and a key: the arguments, else BERTUNE_SERVER, BERTUNE_KEY or the admin key in
    BERTUNE_HOME.

    Every call raises `ApiError` when the server refuses and `UnreachableError` when none answers.
    Short outages are waited out where a repeated request changes nothing.
    """

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = Connection(server, key, transport=transport, sleep=sleep)
        self._sleep = sleep

    @property
    def server(self) -> str:
        return self._connection.server

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Data sets

    def upload_dataset(
        self,
        train: Path | str,
        validation: Path | str | None = None,
        test: Path | str | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> DatasetAnswer:
        """Upload local files. Equal content gives the same data set again.

        ``options`` are those of `model.config.DataOptions`. Raises `OSError` for a file that
        cannot be read.
        """
        paths = {"train": train, "validation": validation, "test": test}
        form = {"name": name, "options": json.dumps(dict(options)) if options else None}
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(Path(path).open("rb"))
                for split, path in paths.items()
                if path is not None
            }

            def parts() -> dict[str, Any]:
                for file in files.values():
                    file.seek(0)
                return {split: (Path(file.name).name, file) for split, file in files.items()}

            answer = self._connection.post(
                "/v1/datasets",
                repeatable=True,
                files=parts,
                data={field: value for field, value in form.items() if value is not None},
                timeout=UPLOAD_TIMEOUT,
            )
        return DatasetAnswer.model_validate(answer)

    def datasets(self) -> list[DatasetAnswer]:
        return list(self._pages("/v1/datasets", DatasetAnswer))

    def dataset(self, dataset_id: str) -> DatasetAnswer:
        return DatasetAnswer.model_validate(
            self._connection.get(f"/v1/datasets/{_part(dataset_id)}")
        )

    # Studies

    def validate(self, spec: StudySpec | Mapping[str, Any]) -> ValidationAnswer:
        """The checks of `submit` and what they find; nothing is stored."""
        body = _document(spec)
        answer = self._connection.post("/v1/studies/validate", repeatable=True, json=body)
        return ValidationAnswer.model_validate(answer)

    def submit(
        self, spec: StudySpec | Mapping[str, Any], idempotency_key: str | None = None
    ) -> StudyAnswer:
        """Queue a study. The same ``idempotency_key`` gives the same study, never a second one;
        by default each call has its own, which makes repeated tries safe."""
        answer = self._connection.post(
            "/v1/studies",
            repeatable=True,
            json=_document(spec),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return StudyAnswer.model_validate(answer)

    def studies(
        self, state: StudyState | None = None, label: str | None = None, limit: int | None = None
    ) -> list[StudyAnswer]:
        """Studies, newest first; ``label`` is ``key:value``, ``limit`` None takes them all."""
        params = {"state": state, "label": label}
        return list(
            self._pages(
                "/v1/studies", StudyAnswer, {k: v for k, v in params.items() if v}, limit=limit
            )
        )

    def study(self, id_or_name: str) -> StudyAnswer:
        """A study by its id, else the newest of this name."""
        try:
            return self._study(id_or_name)
        except ApiError as error:
            # 422: no id looks like this, but a name may.
            if error.status not in (404, 422):
                raise
            for study in self._pages("/v1/studies", StudyAnswer):
                if study.name == id_or_name:
                    return study
            raise ApiError(
                404, "not_found", f"No study has the id or name {id_or_name!r}."
            ) from error

    def cancel(self, study_id: str) -> StudyAnswer:
        """Stop a study: queued trials are dropped, running ones stop at their next report."""
        answer = self._connection.post(f"/v1/studies/{_part(study_id)}/cancel")
        return StudyAnswer.model_validate(answer)

    def pause(self, study_id: str, mode: PauseMode = "drain") -> StudyAnswer:
        """Start no more trials of a study until `resume`. Running ones finish (``drain``), or save
        a checkpoint and go back to the queue (``preempt``). Another mode replaces the first."""
        answer = self._connection.post(
            f"/v1/studies/{_part(study_id)}/pause", repeatable=True, json={"mode": mode}
        )
        return StudyAnswer.model_validate(answer)

    def resume(self, study_id: str) -> StudyAnswer:
        """Let a paused study go on; one that is not paused is left as it is."""
        answer = self._connection.post(f"/v1/studies/{_part(study_id)}/resume", repeatable=True)
        return StudyAnswer.model_validate(answer)

    def extend(
        self, study_id: str, add_trials: int, idempotency_key: str | None = None
    ) -> StudyAnswer:
        """Add trials to a study that has completed, or is open. The same ``idempotency_key`` adds
        them once; by default each call has its own, which makes repeated tries safe."""
        answer = self._connection.post(
            f"/v1/studies/{_part(study_id)}/extend",
            repeatable=True,
            json={"add_trials": add_trials},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return StudyAnswer.model_validate(answer)

    def delete(self, study_id: str) -> None:
        """Remove a study, its trials and its files for good; an open one is cancelled first.

        It is gone from every list at once, its files soon after. The data set stays.
        """
        self._connection.delete(f"/v1/studies/{_part(study_id)}")

    def wait(
        self,
        study_id: str,
        timeout_s: float | None = None,
        on_change: Callable[[StudyAnswer], None] | None = None,
        on_look: Callable[[StudyAnswer], None] | None = None,
        poll_s: float = 1.0,
    ) -> StudyAnswer:
        """Return the study once it has completed, failed or been cancelled; a paused one is waited
        for until somebody resumes it and it ends.

        ``on_look`` sees it at every look, ``on_change`` at the first and then whenever something
        about it changed. A server that goes away for less than `OUTAGE_S` is waited for. Raises
        `WaitTimeoutError` after ``timeout_s``; the study goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        study, seen = self._study(study_id), None
        while True:
            if on_look is not None:
                on_look(study)
            if on_change is not None and study != seen:
                on_change(study)
            if study.state in STUDY_ENDED:
                return study
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"{study.name} is still {study.state} after {timeout_s} s.")
            self._sleep(poll_s)
            study, seen = self._patient_study(study_id), study

    # Trials

    def trials(self, study_id: str) -> list[TrialRow]:
        return list(self._pages(f"/v1/studies/{_part(study_id)}/trials", TrialRow))

    def trial(self, study_id: str, number: int) -> TrialAnswer:
        return TrialAnswer.model_validate(self._connection.get(_trial_path(study_id, number)))

    def confusion(self, study_id: str, number: int, split: str = "validation") -> ConfusionAnswer:
        """A trial's confusion matrix, rows true, columns predicted."""
        path = f"{_trial_path(study_id, number)}/confusion-matrix"
        return ConfusionAnswer.model_validate(self._connection.get(path, {"split": split}))

    def download_best(self, study_id: str, target: Path | str) -> Path:
        """Fetch the best trial's model into the folder ``target``, which `from_pretrained` loads.

        A ``target`` ending in ``.zip`` gets the packed model instead. Either appears whole or not
        at all. Raises `FileExistsError` when it exists already.
        """
        target = Path(target)
        if target.exists():
            raise FileExistsError(f"{target} exists already; name a new folder or file.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".bertune-") as scratch:
            packed = Path(scratch) / "model.zip"
            self._download(f"/v1/studies/{_part(study_id)}/best/model", packed)
            if target.suffix == ".zip":
                return packed.rename(target)
            unpacked = Path(scratch) / "model"
            with zipfile.ZipFile(packed) as archive:
                archive.extractall(unpacked)
            return unpacked.rename(target)

    # Workers and access

    def workers(self) -> list[WorkerAnswer]:
        return list(self._pages("/v1/workers", WorkerAnswer))

    def login_link(self) -> str:
        """The full address that logs one browser in, once, within ten minutes."""
        link = LoginLink.model_validate(self._connection.post("/v1/login-links"))
        return self.server + link.url

    def _study(self, study_id: str) -> StudyAnswer:
        return StudyAnswer.model_validate(self._connection.get(f"/v1/studies/{_part(study_id)}"))

    def _patient_study(self, study_id: str) -> StudyAnswer:
        """The study, even when the server is away for a while: it may be restarting."""
        until = time.monotonic() + OUTAGE_S
        while True:
            try:
                return self._study(study_id)
            except UnreachableError:
                if time.monotonic() >= until:
                    raise
                self._sleep(1.0)

    def _pages(
        self,
        path: str,
        kind: type[AnswerType],
        params: Mapping[str, str] | None = None,
        *,
        limit: int | None = None,
    ) -> Iterator[AnswerType]:
        query: dict[str, str | int] = {
            **(params or {}),
            "limit": min(limit or PAGE_LIMIT, PAGE_LIMIT),
        }
        given = 0
        while True:
            page = self._connection.get(path, query)
            for item in page["items"]:
                yield kind.model_validate(item)
                given += 1
                if given == limit:
                    return
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _download(self, path: str, target: Path) -> None:
        with self._connection.stream(path) as chunks, target.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)


def _document(spec: StudySpec | Mapping[str, Any]) -> dict[str, Any]:
    return spec.model_dump(mode="json") if isinstance(spec, StudySpec) else dict(spec)


def _part(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")


def _trial_path(study_id: str, number: int) -> str:
    return f"/v1/studies/{_part(study_id)}/trials/{number}"

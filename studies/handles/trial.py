"""A trial in hand: its figures, and the calls that fetch what it left."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import Scalar
from studies.api import CALLS
from studies.asking import work
from studies.calling import Awaiting, Blocking, Steps, call
from studies.connection import AsyncConnection, Connection
from studies.wire.studies import BestTrial
from studies.wire.trials import TrialAnswer

if TYPE_CHECKING:
    from studies.handles.confusion import ConfusionMatrix


class HeldTrial:
    """A trial as it was when it was read."""

    def __init__(self, study_id: str, study_name: str, answer: BestTrial | TrialAnswer) -> None:
        self.study_id = study_id
        self.study_name = study_name
        self.number = answer.number
        self.value: float | None = answer.value
        self.params: dict[str, Scalar] | None = answer.params
        self.metrics: dict[str, float] = answer.metrics

    @call
    def details(self) -> Steps[TrialAnswer]:
        """All that is known of it: state, epochs, scores per class, attempts."""
        return CALLS.trial(self.study_id, self.number)

    @call
    def confusion_matrix(
        self,
        split: str = "validation",
        *,
        kind: str | None = None,
        label: str | None = None,
        head: str | None = None,
    ) -> "Steps[ConfusionMatrix]":
        """Its matrix on the ``validation`` split, or of a study's best trial on ``test``.

        Tasks with several matrices take a ``kind`` (the usual one without), and for `per_class` a
        ``label``; `multi_task` takes a ``head`` (the first without).
        """
        answer = yield from CALLS.confusion(self.study_id, self.number, split, kind, label, head)
        about = "".join(f": {name}" for name in (head, label) if name)
        title = f"{self.study_name}, trial {self.number}, {split}{about}"
        return (yield from work(lambda: _matrix(answer, title)))

    @call
    def download(self, path: Path | str) -> Steps[Path]:
        """Fetch its model into the folder ``path``, which `from_pretrained` loads, or packed into
        a file that ends in ``.zip``.

        It appears whole or not at all. Raises `FileExistsError` where something is already, but
        for an empty folder, and `ApiError` when the model was not kept (the spec's
        `checkpoint.keep`).
        """
        return CALLS.download_model(self.study_id, self.number, path)

    def __repr__(self) -> str:
        value = "" if self.value is None else f" {self.value:.4f}"
        return f"<trial {self.number} of {self.study_name}{value}>"

    def _repr_html_(self) -> str:
        facts = {"value": self.value, **(self.params or {})}
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(figure(value))}</td></tr>"
            for name, value in facts.items()
        )
        caption = f"{escape(self.study_name)}, trial {self.number}"
        return f"<table><caption>{caption}</caption>{cells}</table>"


class Trial(HeldTrial, Blocking):
    """A trial whose calls return once they are answered."""

    def __init__(
        self,
        connection: Connection,
        study_id: str,
        study_name: str,
        answer: BestTrial | TrialAnswer,
    ) -> None:
        super().__init__(study_id, study_name, answer)
        self._connection = connection


class AsyncTrial(HeldTrial, Awaiting):
    """A trial whose calls are awaited."""

    def __init__(
        self,
        connection: AsyncConnection,
        study_id: str,
        study_name: str,
        answer: BestTrial | TrialAnswer,
    ) -> None:
        super().__init__(study_id, study_name, answer)
        self._connection = connection


def figure(value: Any) -> str:
    """A value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _matrix(answer: Any, title: str) -> "ConfusionMatrix":
    from studies.handles.confusion import ConfusionMatrix  # brings in numpy

    return ConfusionMatrix.of(answer, title)

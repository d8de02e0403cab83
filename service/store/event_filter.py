"""Which events somebody wants: by study, by patterns of types, by labels of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select

from service.store.tables import Event, StudyLabel
from studies.wire.events import EventAnswer, matches


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event with what filters ask of its study."""

    answer: EventAnswer
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Everything stated must hold; of several patterns (`study.*`, `trial.failed`, `*`) one."""

    study_id: str | None = None
    patterns: Sequence[str] = ()
    labels: Sequence[tuple[str, str]] = ()

    def admits(self, event: SeenEvent) -> bool:
        if self.study_id not in (None, event.answer.study_id):
            return False
        if self.patterns and not any(matches(p, event.answer.type) for p in self.patterns):
            return False
        return all(event.labels.get(key) == value for key, value in self.labels)

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        chosen: list[ColumnElement[bool]] = []
        if self.study_id is not None:
            chosen.append(Event.study_id == self.study_id)
        if self.patterns:
            chosen.append(or_(*(_condition(pattern) for pattern in self.patterns)))
        for key, value in self.labels:
            labelled = select(StudyLabel.study_id).where(
                StudyLabel.key == key, StudyLabel.value == value
            )
            chosen.append(Event.study_id.in_(labelled))
        return chosen


def _condition(pattern: str) -> ColumnElement[bool]:
    if pattern == "*" or pattern.endswith(".*"):
        return Event.type.startswith(pattern[:-1], autoescape=True)
    return Event.type == pattern

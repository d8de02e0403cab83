"""Schedules as people keep them in files: YAML documents, several per file, divided by `---`.

Every problem of every file is found before anything is said of one, each with its file and line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model.errors import InputError
from service.body_paths import clean_path
from service.terminal.field_faults import fault_text
from studies.wire.schedules import ScheduleSpec
from studies.yaml_text import YamlDocument, read_yaml_documents

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 10_000_000
"""A file that is larger holds something else than schedules."""


@dataclass(frozen=True, slots=True)
class Problem:
    file: Path
    line: int | None
    field: str
    text: str

    def __str__(self) -> str:
        """`nightly.yaml:7: study.budget.n_trials: …`"""
        place = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        named = not self.field or self.text.startswith(self.field)
        return f"{place}: {self.text}" if named else f"{place}: {self.field}: {self.text}"


@dataclass(frozen=True, slots=True)
class StatedSchedule:
    """A schedule, and where it is written down."""

    file: Path
    document: YamlDocument
    spec: ScheduleSpec

    def problem(self, text: str, where: Sequence[str | int] = ()) -> Problem:
        return _problem(self.file, self.document, text, where)


def schedule_files(path: Path) -> list[Path]:
    """The file ``path``, or all YAML files in that folder and below, hidden ones left out. Raises
    `FileNotFoundError`."""
    if not path.is_dir():
        path.stat()
        return [path]
    return sorted(
        found
        for found in path.rglob("*")
        if found.suffix in SUFFIXES
        and found.is_file()
        and not any(part.startswith(".") for part in found.relative_to(path).parts)
    )


def read_schedules(files: Iterable[Path]) -> tuple[list[StatedSchedule], list[Problem]]:
    """The schedules in ``files`` that are right as far as can be told without a server, and what
    is wrong with the others. Raises `OSError`."""
    schedules: list[StatedSchedule] = []
    problems: list[Problem] = []
    for file in files:
        try:
            documents = _documents(file)
        except InputError as error:
            problems.append(_unread(file, error))
            continue
        for document in documents:
            try:
                spec = ScheduleSpec.model_validate(document.data)
                schedules.append(StatedSchedule(file, document, spec))
            except ValidationError as error:
                problems += _faults(file, document, error)
    return schedules, [*problems, *_stated_twice(schedules)]


def _documents(file: Path) -> list[YamlDocument]:
    if file.stat().st_size > MAX_BYTES:
        raise InputError("too_large", f"Over {MAX_BYTES:,} bytes: no file of schedules.")
    try:
        return read_yaml_documents(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError("not_utf8", f"Not UTF-8: {error.reason}.") from error


def _unread(file: Path, error: InputError) -> Problem:
    place = str(error.where[0]) if error.where else ""
    line = place.removeprefix("line ")
    return Problem(file, int(line) if line.isdigit() else None, "", error.detail)


def _faults(file: Path, document: YamlDocument, error: ValidationError) -> list[Problem]:
    return [
        _problem(file, document, fault_text(fault), clean_path(fault["loc"], document.data))
        for fault in error.errors(include_url=False)
    ]


def _problem(file: Path, document: YamlDocument, text: str, where: Sequence[str | int]) -> Problem:
    return Problem(file, document.line_of(where), ".".join(map(str, where)), text)


def _stated_twice(schedules: Iterable[StatedSchedule]) -> list[Problem]:
    first: dict[str, StatedSchedule] = {}
    problems = []
    for schedule in schedules:
        other = first.setdefault(schedule.spec.name, schedule)
        if other is not schedule:
            place = f"{other.file}:{other.document.line}"
            text = f"{schedule.spec.name!r} stands in {place} too; names are unique."
            problems.append(schedule.problem(text, ("name",)))
    return problems

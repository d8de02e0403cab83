"""What a side measured: figures of its trials and of its whole study, as they go into JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial; seconds of wall clock."""

    number: int
    steps: int
    train_s: float
    """Optimizer steps and what surrounds them, evaluation excluded."""
    evaluation_s: float
    """All passes over the validation rows."""
    trial_s: float
    """From the moment that the trial was handed out to its recorded result."""
    finished_s: float
    """When its result was recorded, from the study's submission."""
    accuracy: float
    """On the validation rows, at the best epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One side's run of a plan."""

    search_s: float
    """From the submission (the call of the search) to the last recorded result."""
    last_result_at: float
    """The clock, in seconds since 1970, when the last result was recorded."""
    trials: tuple[TrialRecord, ...]
    versions: dict[str, str]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "StudyRecord":
        trials = tuple(TrialRecord(**trial) for trial in fields.pop("trials"))
        return cls(**fields, trials=trials)

    @classmethod
    def read(cls, path: Path) -> "StudyRecord":
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRun:
    """A side's run as the command that started it saw it."""

    case: str
    round: int
    side: str
    study_s: float
    """From the start of its first process to the last recorded result."""
    cpu_s: float
    """Processor seconds of all its processes, which a busy machine disturbs less than the clock."""
    load: float
    """The machine's load average over a minute as the run began."""
    matrix_rate: float
    """The rate of matrix products measured at the start of the round, in flops per second."""
    real_tokens: tuple[int, ...]
    """Per trial: train tokens of all epochs, padding not counted."""
    train_flops: tuple[float, ...]
    """Per trial: what the matrix products of these tokens take, forward and backward."""
    study: StudyRecord

"""What is compared: cases of fixed trials, and the plan of one round that every side reads."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

PEERS = ("defaults", "tuned")
"""Transformers' own search: as it comes, and set up by someone who knows it."""
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The searched parameters of one trial."""

    learning_rate: float
    batch_size: int
    max_length: int
    """In word pieces, special ones included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One data set, one model and a fixed list of trials."""

    name: str
    data: str
    """A folder with train.csv and dev.csv, or ``synthetic:WORDS`` (longest text)."""
    model: str
    """`minilm`, ``random:SHAPE`` of `comparison.models`, or a Hugging Face folder."""
    trials: tuple[Trial, ...]
    rows: int = 2000
    """Train rows, drawn anew for every round."""
    validation_rows: int = 500
    epochs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One case in one round: the same rows, trials and settings for every side."""

    case: Case
    seed: int
    data_folder: Path
    model_folder: Path
    device: Device

    @property
    def train_file(self) -> Path:
        return self.data_folder / "train.csv"

    @property
    def validation_file(self) -> Path:
        return self.data_folder / "dev.csv"

    def copies(self, slots: int) -> int:
        """How many times over a worker of so many slots runs the trials."""
        return 1 if self.device == "cpu" else slots

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), default=str, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        fields = json.loads(path.read_text(encoding="utf-8"))
        trials = tuple(Trial(**trial) for trial in fields["case"].pop("trials"))
        return cls(
            case=Case(**fields["case"], trials=trials),
            seed=fields["seed"],
            data_folder=Path(fields["data_folder"]),
            model_folder=Path(fields["model_folder"]),
            device=fields["device"],
        )


def fine_tuning_trials(learning_rate: float) -> tuple[Trial, ...]:
    """Eight trials around a learning rate: what a search over its three parameters meets."""
    factors = (1.0, 0.5, 2.0, 1.0, 0.5, 2.0, 1.0, 1.4)
    batches = (32, 16, 32, 16, 32, 16, 64, 64)
    lengths = (64, 64, 32, 48, 48, 32, 64, 48)
    return tuple(
        Trial(learning_rate=learning_rate * factor, batch_size=batch, max_length=length)
        for factor, batch, length in zip(factors, batches, lengths, strict=True)
    )


def shape_trials(batches: Sequence[int], lengths: Sequence[int]) -> tuple[Trial, ...]:
    """Every pair of batch size and length, at a rate that no random model diverges at."""
    return tuple(
        Trial(learning_rate=5e-5, batch_size=batch, max_length=length)
        for length in lengths
        for batch in batches
    )


def cpu_cases(data: Path) -> tuple[Case, ...]:
    """MiniLM on 2,000 rows of a task with long and one with short texts."""
    rates = {"subj": 8e-5, "banking77": 3e-4}
    return tuple(
        Case(name=name, data=str(data / name), model="minilm", trials=fine_tuning_trials(rate))
        for name, rate in rates.items()
    )


def gpu_cases() -> tuple[Case, ...]:
    """Random weights, which are as fast as trained ones: no download."""
    trials = shape_trials((16, 32, 64), (32, 128, 512))
    rows = {"minilm": 2048, "bert-base": 1024}
    return tuple(
        Case(name=name, data="synthetic:450", model=f"random:{name}", trials=trials, rows=count)
        for name, count in rows.items()
    )


def smoke_cases() -> tuple[Case, ...]:
    """Seconds, to see that every side still runs."""
    trials = shape_trials((8, 16), (16,))
    case = Case(name="smoke", data="synthetic:20", model="random:tiny", trials=trials)
    return (replace(case, rows=48, validation_rows=24),)

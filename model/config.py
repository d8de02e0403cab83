"""What one training run is: plain frozen dataclasses, without torch.

Every field of `TrainConfig` that carries a `Rule` may be fixed or searched by a study; the rules
are the one place that says which values are allowed.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from model.errors import InputError

Task = Literal["single_label", "multi_label", "token", "regression"]
SUPPORTED_TASKS: tuple[Task, ...] = ("single_label",)
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Direction = Literal["maximize", "minimize"]
Schedule = Literal["linear", "cosine", "constant"]
Truncation = Literal["head", "tail", "head_tail"]
ClassWeighting = Literal["none", "inverse"]
Precision = Literal["auto", "fp32", "bf16"]
MissingPolicy = Literal["drop", "empty", "error"]
Scalar = bool | int | float | str

SCRATCH_PREFIX = "scratch:"
"""What the name of a model with random weights begins with; its size follows."""
SCRATCH_LEARNING_RATE = 5e-4
"""Its default learning rate: random weights need larger steps than pretrained ones."""

METRIC_DIRECTIONS: dict[str, Direction] = {
    "accuracy": "maximize",
    "macro_f1": "maximize",
    "micro_f1": "maximize",
    "weighted_f1": "maximize",
    "mcc": "maximize",
    "loss": "minimize",
}
"""Metric names of `single_label` and the direction in which each is better."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The values a setting may take: a kind, and bounds or choices."""

    kind: Literal["int", "float", "choice"]
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    optional: bool = False
    above_low: bool = False
    """`low` itself is not allowed."""


def setting(default: Any, rule: Rule) -> Any:
    return dataclasses.field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One configuration. Lengths are in word pieces, ratios in shares of all optimizer steps."""

    model: str = "scratch:tiny"
    """`scratch:tiny|mini|small|base`, or the path of a Hugging Face model folder."""
    task: Task = "single_label"
    seed: int = 0
    metric: str = "macro_f1"
    """The validation metric that names the best epoch."""
    direction: Direction = "maximize"
    precision: Precision = "auto"
    """`auto` takes bf16 autocast where the device runs it fast, fp32 elsewhere."""

    learning_rate: float = setting(5e-5, Rule("float", 0, 1, above_low=True))
    batch_size: int = setting(32, Rule("int", 1, 4096))
    max_length: int = setting(64, Rule("int", 4, 8192))
    epochs: int = setting(3, Rule("int", 1, 1000))
    weight_decay: float = setting(0.01, Rule("float", 0, 1))
    warmup_ratio: float = setting(0.1, Rule("float", 0, 1))
    lr_schedule: Schedule = setting("linear", Rule("choice", choices=get_args(Schedule)))
    max_grad_norm: float = setting(1.0, Rule("float", 0, above_low=True))
    dropout: float | None = setting(None, Rule("float", 0, 0.9, optional=True))
    """None keeps the checkpoint's own dropout."""
    label_smoothing: float = setting(0.0, Rule("float", 0, 0.9))
    truncation: Truncation = setting("head", Rule("choice", choices=get_args(Truncation)))
    class_weighting: ClassWeighting = setting(
        "none", Rule("choice", choices=get_args(ClassWeighting))
    )


RULES: dict[str, Rule] = {
    field.name: field.metadata["rule"]
    for field in dataclasses.fields(TrainConfig)
    if "rule" in field.metadata
}
"""The settings a study may fix or search, by name."""


def check_setting(name: str, value: object, where: tuple[str | int, ...]) -> Scalar | None:
    """Return ``value`` as the setting's own type, or raise `InputError` naming ``where``."""
    rule = RULES.get(name)
    if rule is None:
        known = ", ".join(sorted(RULES))
        raise InputError(
            "unknown_setting", f"{name!r} is no training setting. Known: {known}.", where
        )
    if value is None and rule.optional:
        return None
    if rule.kind == "choice":
        if value not in rule.choices:
            raise InputError(
                "invalid_value",
                f"{name} must be one of {', '.join(rule.choices)}; got {value!r}.",
                where,
            )
        return str(value)
    return _check_number(name, rule, value, where)


def _check_number(
    name: str, rule: Rule, value: object, where: tuple[str | int, ...]
) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        raise InputError("invalid_value", f"{name} must be a finite number; got {value!r}.", where)
    if rule.kind == "int" and value != int(value):
        raise InputError("invalid_value", f"{name} must be a whole number; got {value!r}.", where)
    if value < rule.low or value > rule.high or (rule.above_low and value == rule.low):
        low = f"above {rule.low:g}" if rule.above_low else f"at least {rule.low:g}"
        high = "" if math.isinf(rule.high) else f" and at most {rule.high:g}"
        raise InputError("invalid_value", f"{name} must be {low}{high}; got {value!r}.", where)
    return int(value) if rule.kind == "int" else float(value)


def is_finite(value: int | float) -> bool:
    """Whether a float can hold the number; an int may be larger than every float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """How to read a data set's files. Every default fits a UTF-8 file with `text,label` columns."""

    text: str | None = None
    """Column of the text; None looks for `text`, else `text_a`."""
    text_b: str | None = None
    """Column of the second text of a pair; None looks for `text_b`."""
    label: str | None = None
    """Column of the label; None looks for `label`."""
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = None
    """None goes by the file name's ending."""
    delimiter: str | None = None
    encoding: str = "utf-8"
    missing: MissingPolicy = "drop"
    """Rows with a missing text or label: dropped, taken as an empty text, or refused."""
    validation_fraction: float = 0.15
    """Share of the training rows held out, stratified, when no validation file is given."""
    test_fraction: float = 0.0
    """Share of the training rows held out as the test split when no test file is given."""

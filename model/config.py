"""What one training run is: plain frozen dataclasses, without torch.

Every field of `TrainConfig` that carries a `Rule` may be fixed or searched by a study; the rules
are the one place that says which values are allowed.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from model.errors import InputError

Task = Literal["single_label", "multi_label", "token", "regression", "multi_task"]
TASKS: tuple[Task, ...] = get_args(Task)
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Direction = Literal["maximize", "minimize"]
Schedule = Literal["linear", "cosine", "constant"]
Cut = Literal["head", "tail", "head_tail"]
Truncation = Literal["head", "tail", "head_tail", "windows"]
Together = Literal["joined", "apart"]
LogitPooling = Literal["mean", "max"]
Pooling = Literal["cls", "mean", "max"]
ClassWeighting = Literal["none", "inverse", "effective_number"]
ClassLoss = Literal["cross_entropy", "focal"]
RegressionLoss = Literal["mse", "huber"]
Sampling = Literal["none", "oversample", "undersample"]
Precision = Literal["auto", "fp32", "bf16"]
MissingPolicy = Literal["drop", "empty", "token", "error"]
DuplicatePolicy = Literal["drop", "keep"]
UnseenPolicy = Literal["error", "drop"]
Quoting = Literal["minimal", "none"]
Scalar = bool | int | float | str

MOST_EPOCHS = 1000
"""As many as a run may have."""

SCRATCH_PREFIX = "scratch:"
"""What the name of a model with random weights begins with; its size follows."""
SCRATCH_LEARNING_RATE = 5e-4
"""Its default learning rate: random weights need larger steps than pretrained ones."""


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
    tasks: tuple[Task, ...] = TASKS
    """The tasks that have the setting."""


MULTI_TASK: Task = "multi_task"
LOSS_WEIGHT = "loss_weight."
"""What the setting of a head's weight in the loss begins with; the head's name follows."""

_CLASSES: tuple[Task, ...] = ("single_label", "multi_label", "token")
_WHOLE_TEXTS: tuple[Task, ...] = ("single_label", "multi_label", "regression")


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
    heads: dict[str, Task] = field(default_factory=dict)
    """Of `multi_task`: what every head's labels are, by its name."""
    loss_weights: dict[str, float] = field(default_factory=dict)
    """Of `multi_task`, by head: how much its mean loss counts; 1 where none is stated."""
    precision: Precision = "auto"
    """`auto` takes bf16 autocast where the device runs it fast, fp32 elsewhere."""

    learning_rate: float = setting(5e-5, Rule("float", 0, 1, above_low=True))
    """The peak, reached after the warm-up."""
    batch_size: int = setting(32, Rule("int", 1, 4096))
    """Rows that an optimizer step learns from; memory never changes it."""
    gradient_accumulation: int = setting(1, Rule("int", 1, 1024))
    """Batches per optimizer step: it learns from that many times `batch_size` rows, of which
    `batch_size` go through the network at once."""
    max_length: int = setting(64, Rule("int", 4, 8192))
    """Word pieces of a text that are read, special tokens counted."""
    epochs: int = setting(3, Rule("int", 1, MOST_EPOCHS))
    """How often the train rows are gone through."""
    max_steps: int | None = setting(None, Rule("int", 1, 10**9, optional=True))
    """The run ends after `epochs` epochs or so many optimizer steps, whichever comes first, and
    the learning rate's course goes by that. The epoch it ends in is validated as it stands. Where
    only the steps are stated, there are as many epochs as they need."""
    early_stopping_patience: int | None = setting(None, Rule("int", 1, MOST_EPOCHS, optional=True))
    """The run ends after so many epochs in a row without a better `metric`; None: never."""
    early_stopping_delta: float = setting(0.0, Rule("float", 0))
    """How much better is better."""
    layer_decay: float = setting(1.0, Rule("float", 0, 1, above_low=True))
    """Every layer learns at so much of the rate of the one above it; 1 is off."""
    freeze_layers: int = setting(0, Rule("int", 0, 1000))
    """So many of the lowest layers, and the embeddings, stay as they are; 0 freezes nothing."""
    ema_decay: float = setting(0.0, Rule("float", 0, 0.999999))
    """The weights validated and kept are their moving average over the steps; 0 is off."""
    weight_decay: float = setting(0.01, Rule("float", 0, 1))
    """Of AdamW; none on biases and norms."""
    warmup_ratio: float = setting(0.1, Rule("float", 0, 1))
    """Share of the steps over which the learning rate climbs to its peak."""
    lr_schedule: Schedule = setting("linear", Rule("choice", choices=get_args(Schedule)))
    """How the learning rate goes on from its peak."""
    max_grad_norm: float = setting(1.0, Rule("float", 0, above_low=True))
    """Gradients are clipped to this norm."""
    dropout: float | None = setting(None, Rule("float", 0, 0.9, optional=True))
    """None keeps the checkpoint's own dropout."""
    pooling: Pooling | None = setting(
        None, Rule("choice", choices=get_args(Pooling), optional=True, tasks=_WHOLE_TEXTS)
    )
    """What the classifier reads of a text's tokens: the first, or the mean or maximum of all. None
    keeps the model's own, which is the first but for some ModernBERT checkpoints."""
    label_smoothing: float = setting(0.0, Rule("float", 0, 0.9, tasks=_CLASSES))
    """Share of the target that is spread over all classes."""
    truncation: Truncation = setting("head", Rule("choice", choices=get_args(Truncation)))
    """What becomes of a text beyond `max_length`: its start, its end or half of each is read, or
    all of it in windows of that length."""
    window_stride: float = setting(0.5, Rule("float", 0, 1, above_low=True, tasks=_WHOLE_TEXTS))
    """How far a window moves to the next, as a share of its length; 1: they do not overlap."""
    window_pooling: LogitPooling = setting(
        "mean", Rule("choice", choices=get_args(LogitPooling), tasks=_WHOLE_TEXTS)
    )
    """How the logits of a text's windows become one row."""
    max_windows: int = setting(16, Rule("int", 1, 1024, tasks=_WHOLE_TEXTS))
    """So many windows of a text are read, and the rest of it is lost: all go through the network
    at once, so this bounds the memory that one text takes."""
    columns: Together = setting(
        "joined", Rule("choice", choices=get_args(Together), tasks=_WHOLE_TEXTS)
    )
    """How the text columns of a row, or the texts of a pair, become one input: in one sequence
    with separators, whose longest text is cut first; or apart, each in a sequence of its own of
    `max_length`, whose logits are pooled. Empty ones are left out then."""
    column_pooling: LogitPooling = setting(
        "mean", Rule("choice", choices=get_args(LogitPooling), tasks=_WHOLE_TEXTS)
    )
    """Of `columns: apart`: how the logits of a row's texts become one row."""
    class_weighting: ClassWeighting = setting(
        "none", Rule("choice", choices=get_args(ClassWeighting), tasks=_CLASSES)
    )
    """How much rare classes count more in the loss; counted by what an epoch holds."""
    class_weighting_beta: float = setting(0.999, Rule("float", 0, 0.999999, tasks=_CLASSES))
    """Of `effective_number`: about how many rows of a class, 1 / (1 - beta), bring news."""
    loss: ClassLoss = setting(
        "cross_entropy", Rule("choice", choices=get_args(ClassLoss), tasks=_CLASSES)
    )
    """`focal` counts rows less the surer they are told already; of several classes per row each
    answer by itself."""
    focal_gamma: float = setting(2.0, Rule("float", 0, 10, tasks=_CLASSES))
    """Of `focal`: how little rows count that are predicted well; 0 is cross-entropy."""
    regression_loss: RegressionLoss = setting(
        "mse", Rule("choice", choices=get_args(RegressionLoss), tasks=("regression",))
    )
    """`huber` is quadratic up to one standard deviation of the train labels, then linear."""
    sampling: Sampling = setting(
        "none", Rule("choice", choices=get_args(Sampling), tasks=("single_label",))
    )
    """Rows of an epoch: all once, or every class as often as the largest or the smallest."""
    word_dropout: float = setting(0.0, Rule("float", 0, 0.9, tasks=_WHOLE_TEXTS))
    """Probability with which a word of a train text is left out, drawn anew every epoch."""
    random_swap: float = setting(0.0, Rule("float", 0, 1, tasks=_WHOLE_TEXTS))
    """Share of a train text's words that trade places, drawn anew every epoch."""


RULES: dict[str, Rule] = {
    known.name: known.metadata["rule"]
    for known in dataclasses.fields(TrainConfig)
    if "rule" in known.metadata
}
"""The settings a study may fix or search, by name; `multi_task` has a loss weight per head too."""
LOSS_WEIGHT_RULE = Rule("float", 0, 1000, above_low=True, tasks=(MULTI_TASK,))


def default_settings(model: str, stated: Collection[str]) -> dict[str, Scalar]:
    """Defaults that go by the model, or by the other settings that are ``stated``."""
    found: dict[str, Scalar] = {}
    if model.startswith(SCRATCH_PREFIX):
        found["learning_rate"] = SCRATCH_LEARNING_RATE
    if "max_steps" in stated:  # else three epochs would end most runs before their steps do
        found["epochs"] = MOST_EPOCHS
    return found


def rule_of(name: str) -> Rule | None:
    """The rule of a setting, None where there is no such setting."""
    return LOSS_WEIGHT_RULE if name.startswith(LOSS_WEIGHT) else RULES.get(name)


def settings_of(task: Task, heads: Mapping[str, Task]) -> tuple[str, ...]:
    """The names of the settings that a task has; ``heads`` are those of `multi_task`."""
    if task != MULTI_TASK:
        return tuple(name for name, rule in RULES.items() if task in rule.tasks)
    tasks = set(heads.values())
    # Rows stand in an epoch once: a class of one head would bring those of the others along.
    shared = (name for name, rule in RULES.items() if tasks & {*rule.tasks} and name != "sampling")
    return (*shared, *(LOSS_WEIGHT + head for head in heads))


def train_config(settings: Mapping[str, Any], **fields: Any) -> TrainConfig:
    """The configuration with these settings, a head's loss weight among them by its own name."""
    weights = {
        name.removeprefix(LOSS_WEIGHT): value
        for name, value in settings.items()
        if name.startswith(LOSS_WEIGHT)
    }
    plain = {name: value for name, value in settings.items() if not name.startswith(LOSS_WEIGHT)}
    return TrainConfig(**fields, **plain, loss_weights=weights)


def check_setting(name: str, value: object, where: tuple[str | int, ...]) -> Scalar | None:
    """Return ``value`` as the setting's own type, or raise `InputError` naming ``where``."""
    rule = rule_of(name)
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


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One of several label columns."""

    # For those who read options with pydantic: a key that is not known is a mistake.
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    column: str
    """Where its labels stand."""
    task: Task | None = None
    """single_label, multi_label or regression; None goes by the column's name, as for one column:
    `labels` holds several classes, `score` a number, any other one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """How to read a data set's files. Every default fits a UTF-8 file with `text,label` columns."""

    text: str | tuple[str, ...] | None = None
    """Column of the text, or several that are joined; None looks for `text`, else `text_a`."""
    separator: str = " "
    """What stands between the columns of a joined text."""
    template: str | None = None
    """Instead of `text`: how columns and JSON fields make the text, such as
    `"[priority] {priority} [from] {meta.sender} [text] {body}"`."""
    text_b: str | None = None
    """Column of the second text of a pair; None looks for `text_b`."""
    text_columns: tuple[str, ...] | None = None
    """Instead of those, two columns or more whose texts are kept apart: the training setting
    `columns` says how they become one input. Two of them are a pair."""
    label: str | None = None
    """Column of the labels; None looks for the task's usual name, such as `label`."""
    label_columns: dict[str, str | LabelColumn] | None = None
    """Instead of `label`, several columns that are learned at once (`multi_task`), each by the name
    of its head: a column, or `{"column": …, "task": …}`. A row may lack labels of some."""
    label_separator: str | None = None
    """Of `multi_label`: what stands between the labels of a cell; None is `|`."""
    task: Task | None = None
    """What the labels are; None goes by the columns (`model.labels.readers`)."""
    format: Literal["csv", "tsv", "jsonl", "parquet"] | None = None
    """None goes by the file name's ending."""
    delimiter: str | None = None
    """What divides the columns of a text file, one character; None is a comma or a tab."""
    quoting: Quoting = "minimal"
    """Of CSV and TSV. `minimal`: a field in quotes may hold delimiters and line ends. `none`:
    quotes are characters like any other, and every line is a row."""
    encoding: str = "utf-8"
    """Of a text file, by the name that Python knows."""
    normalise: bool = True
    """Whether texts and labels are repaired (`model.text_repair`); false keeps them as they are."""
    missing: MissingPolicy = "drop"
    """Rows with a missing text: dropped, kept with an empty text or with `missing_token`, or
    refused. Rows that lack a label, a group or a date are refused by `error`, else dropped."""
    missing_token: str = "[missing]"
    """What `missing: token` writes: plain text, so that it reads the same wherever the model is
    used; name a special token of the model to have it as one piece."""
    duplicates: DuplicatePolicy = "drop"
    """Of train: rows whose text and label stood there before, and rows whose text also stands in
    validation or test. Validation and test keep theirs."""
    unseen: UnseenPolicy = "error"
    """Rows of validation and test with a label that no train row has: refused, or dropped."""
    group: str | None = None
    """Column whose equal values stay in one split, such as a customer or a thread."""
    date: str | None = None
    """Column of the time of a row: the latest rows are held out."""
    date_format: str | None = None
    """None is ISO 8601, `unix` and `unix_ms` are numbers, anything else is `strptime`'s."""
    timezone: str = "UTC"
    """IANA name of the zone of dates that state none."""
    validation_fraction: float = 0.15
    """Share of the training rows held out when no validation file is given."""
    test_fraction: float = 0.0
    """Share of the training rows held out as the test split when no test file is given."""

    @property
    def placeholder(self) -> str | None:
        """What stands where a text is missing; None for nothing."""
        return self.missing_token if self.missing == "token" else None

"""`/v1/studies/validate`: what a spec means on its data, before any hardware is spent on it."""

from collections.abc import Sequence

import numpy as np

from model.config import Scalar, TrainConfig
from model.tokens import Lengths, TokenTable, lengths_summary, unknown_share, unknown_warnings
from model.windows import lost_pieces
from service.context import ServerContext
from service.intake.dataset_facts import stored_warnings
from service.intake.held_out import split_sizes
from service.intake.submission import check
from service.intake.token_sample import sample_tokens
from studies.resolution import ResolvedStudy
from studies.space import grid_values, highest
from studies.spec import Grid, NoPruner, StudySpec, Tpe
from studies.wire.studies import Resolved, ValidationAnswer

MAX_LENGTHS_SHOWN = 32
_READING = ("truncation", "window_stride", "max_windows", "columns")
"""The settings, beside max_length, that say how much of a text is read."""
_MANY_CUT = 0.2


def validate(context: ServerContext, spec: StudySpec) -> ValidationAnswer:
    """Check ``spec`` as a submission would, and measure its texts in word pieces.

    Raises what `service.intake.submission.check` raises. Nothing is stored but a vocabulary in
    the cache.
    """
    checked = check(context, spec)
    table = sample_tokens(context.folders, checked.dataset, checked.model, spec.seed)
    lost = {
        str(length): _lost_pieces(table, checked.resolved, length)
        for length in lengths_to_show(checked.resolved)
    }
    truncated = {length: round(float(np.mean(rows > 0)), 4) for length, rows in lost.items()}
    pieces = max(1, table.pieces)
    return ValidationAnswer(
        resolved=_resolved(spec, checked.resolved),
        token_lengths={name: float(value) for name, value in lengths_summary(table).items()},
        truncated=truncated,
        lost_tokens={length: round(int(rows.sum()) / pieces, 4) for length, rows in lost.items()},
        splits=split_sizes(context.folders, checked.dataset, spec.seed),
        unknown_share=round(unknown_share(table), 6),
        warnings=[
            *_budget_warnings(spec, checked.resolved),
            *_idle_warnings(spec, checked.resolved),
            *stored_warnings(checked.dataset),
            *_token_warnings(table, truncated),
        ],
    )


def _lost_pieces(table: TokenTable, resolved: ResolvedStudy, max_length: int) -> Lengths:
    """[texts] What is not read at this length. Where it is searched whether texts are cut, they
    are; a window's other settings stand at their defaults where they are searched."""
    fixed = {name: value for name, value in resolved.training.items() if name in _READING}
    config = TrainConfig(**fixed, max_length=max(max_length, len(table.frame) + 1))  # type: ignore[arg-type]
    return lost_pieces(table, config)


def lengths_to_show(resolved: ResolvedStudy) -> list[int]:
    """Every max_length that the search space can give, thinned out evenly to 32 of them."""
    parameter = resolved.search_space.get("max_length")
    values: Sequence[Scalar | None]
    if parameter is None:
        values = [resolved.training["max_length"]]
    else:
        values = grid_values(parameter) or ()
    lengths = sorted({int(value) for value in values if value is not None})
    if len(lengths) <= MAX_LENGTHS_SHOWN:
        return lengths
    picks = np.linspace(0, len(lengths) - 1, MAX_LENGTHS_SHOWN).round().astype(int)
    return [lengths[pick] for pick in picks]


def _resolved(spec: StudySpec, resolved: ResolvedStudy) -> Resolved:
    return Resolved(
        task=resolved.task,
        model=resolved.model,
        search_space=resolved.search_space,
        training=resolved.training,
        objective={"metric": resolved.metric, "direction": resolved.direction},
        sampler=spec.sampler.model_dump(mode="json"),
        pruner=spec.pruner.model_dump(mode="json"),
        budget=spec.budget.model_dump(mode="json"),
        seed=spec.seed,
    )


def _budget_warnings(spec: StudySpec, resolved: ResolvedStudy) -> list[str]:
    budget, sampler = spec.budget, spec.sampler
    warnings = []
    if isinstance(sampler, Tpe) and budget.n_trials <= sampler.n_startup_trials:
        warnings.append(
            f"The first {sampler.n_startup_trials} trials of the TPE sampler are random, so all "
            f"{budget.n_trials} are."
        )
    if len(resolved.enqueue) > budget.n_trials:
        warnings.append(
            f"{len(resolved.enqueue)} configurations are enqueued, but only {budget.n_trials} "
            "trials run."
        )
    if isinstance(sampler, Grid) and resolved.grid is not None:
        points = len(resolved.grid) + len(resolved.enqueue)
        if points != budget.n_trials:
            warnings.append(
                f"The grid and the enqueued configurations are {points} trials, the budget is "
                f"{budget.n_trials}."
            )
    if not isinstance(spec.pruner, NoPruner) and _most_epochs(resolved) == 1:
        warnings.append("With one epoch there is nothing to prune.")
    if budget.max_parallel > budget.n_trials:
        warnings.append(f"max_parallel {budget.max_parallel} is more than there are trials.")
    return warnings


_WORKS_ONLY_WITH: dict[str, tuple[str, Scalar]] = {
    "focal_gamma": ("loss", "focal"),
    "class_weighting_beta": ("class_weighting", "effective_number"),
    "window_stride": ("truncation", "windows"),
    "window_pooling": ("truncation", "windows"),
    "max_windows": ("truncation", "windows"),
    "column_pooling": ("columns", "apart"),
}
"""Settings that do nothing unless another one has this value."""


def _idle_warnings(spec: StudySpec, resolved: ResolvedStudy) -> list[str]:
    """What the spec states or searches that no trial will heed."""
    warnings = []
    for name, (other, value) in _WORKS_ONLY_WITH.items():
        stated = name in spec.training or name in resolved.search_space
        searched = resolved.search_space.get(other)
        values = [resolved.training.get(other)] if searched is None else grid_values(searched)
        if stated and value not in (values or ()):
            warnings.append(f"{name} does nothing unless {other} is {value}.")
    if "early_stopping_delta" in spec.training and (
        resolved.training.get("early_stopping_patience", 1) is None
    ):
        warnings.append("early_stopping_delta does nothing unless early_stopping_patience is set.")
    return warnings


def _most_epochs(resolved: ResolvedStudy) -> Scalar | None:
    parameter = resolved.search_space.get("epochs")
    return resolved.training["epochs"] if parameter is None else highest(parameter)


def _token_warnings(table: TokenTable, truncated: dict[str, float]) -> list[str]:
    warnings = []
    longest, share = list(truncated.items())[-1]
    if share > _MANY_CUT:
        warnings.append(f"{share:.0%} of the texts are cut even at max_length {longest}.")
    return [*warnings, *unknown_warnings(unknown_share(table))]

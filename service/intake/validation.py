"""`/v1/studies/validate`: what a spec means on its data, before any hardware is spent on it."""

from collections.abc import Sequence

import numpy as np

from model.config import Scalar
from model.tokens import TokenTable, lengths_summary, truncated_share, unknown_share
from service.context import ServerContext
from service.intake.submission import CheckedStudy, check
from service.intake.token_sample import sample_tokens
from studies.resolution import ResolvedStudy
from studies.space import grid_values, highest
from studies.spec import Grid, NoPruner, StudySpec, Tpe
from studies.wire.studies import Resolved, ValidationAnswer

MAX_LENGTHS_SHOWN = 32
_MANY_CUT = 0.2
_MANY_UNKNOWN = 0.01
_FEW_ROWS = 10


def validate(context: ServerContext, spec: StudySpec) -> ValidationAnswer:
    """Check ``spec`` as a submission would, and measure its texts in word pieces.

    Raises what `service.intake.submission.check` raises. Nothing is stored but a vocabulary in
    the cache.
    """
    checked = check(context, spec)
    table = sample_tokens(context.folders, checked.dataset, checked.model, spec.seed)
    truncated = {
        str(length): round(truncated_share(table, length), 4)
        for length in lengths_to_show(checked.resolved)
    }
    return ValidationAnswer(
        resolved=_resolved(spec, checked.resolved),
        token_lengths={name: float(value) for name, value in lengths_summary(table).items()},
        truncated=truncated,
        unknown_share=round(unknown_share(table), 6),
        warnings=[
            *_budget_warnings(spec, checked.resolved),
            *_data_warnings(checked),
            *_token_warnings(table, truncated),
        ],
    )


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


def _most_epochs(resolved: ResolvedStudy) -> Scalar | None:
    parameter = resolved.search_space.get("epochs")
    return resolved.training["epochs"] if parameter is None else highest(parameter)


def _data_warnings(checked: CheckedStudy) -> list[str]:
    summary = checked.dataset.summary
    warnings = []
    few = [name for name, n in summary["label_counts"]["train"].items() if n < _FEW_ROWS]
    if few:
        names = ", ".join(sorted(few)[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        warnings.append(f"Fewer than {_FEW_ROWS} train rows have the label {names}{more}.")
    warnings += [
        f"{rows} texts of {split} also stand in train; its scores will be too good."
        for split, rows in summary["overlap"].items()
        if rows
    ]
    return warnings


def _token_warnings(table: TokenTable, truncated: dict[str, float]) -> list[str]:
    warnings = []
    longest, share = list(truncated.items())[-1]
    if share > _MANY_CUT:
        warnings.append(f"{share:.0%} of the texts are cut even at max_length {longest}.")
    unknown = unknown_share(table)
    if unknown > _MANY_UNKNOWN:
        warnings.append(f"The model's vocabulary does not know {unknown:.1%} of the word pieces.")
    return warnings

"""What the command line draws: tables of studies, trials, data sets and workers.

Texts from a server (names, labels, errors) are made harmless first: a terminal obeys escape
sequences, and rich reads square brackets as markup.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from model.config import DataOptions, Scalar
from model.measures import DEFAULT_HEAD
from service.failure_text import brief
from studies.wire.datasets import DatasetAnswer, HubOrigin
from studies.wire.leases import WorkerAnswer
from studies.wire.studies import StudyAnswer, ValidationAnswer
from studies.wire.trials import AttemptAnswer, TrialAnswer, TrialRow

if TYPE_CHECKING:
    from service.local.doctor import Finding
    from service.store.tables import ApiKey

STATE_STYLES = {
    "queued": "dim",
    "running": "cyan",
    "paused": "yellow",
    "completed": "green",
    "pruned": "magenta",
    "failed": "red",
    "cancelled": "dim",
}
LEVEL_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
PAUSES = {"drain": "running trials finish", "preempt": "running trials are taken back"}
PIPE_WIDTH = 1000
"""Columns when the output is no terminal: nothing is wrapped or cut for a program to read."""


def make_console(*, stderr: bool = False) -> Console:
    """A console that wraps for a terminal only. NO_COLOR and FORCE_COLOR are honoured by rich."""
    console = _Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = _Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Not for rich to end the process: commands do, with an exit code of their own."""
        raise BrokenPipeError


def plain(text: str) -> Text:
    """``text`` on one line, with control characters shown as `·` and brackets left alone."""
    return Text("".join(c if c.isprintable() else "·" for c in text))


def plain_lines(text: str) -> Text:
    """As `plain`, with the line breaks of ``text`` kept."""
    return Text("\n").join(plain(line) for line in text.strip().splitlines())


def state_text(state: str) -> Text:
    return Text(state, style=STATE_STYLES.get(state, ""))


def number_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def params_text(params: Mapping[str, Scalar] | None) -> str:
    if not params:
        return "–"
    return "  ".join(f"{name}={scalar_text(value)}" for name, value in params.items())


def scalar_text(value: Scalar | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration_text(seconds: float) -> str:
    """``seconds`` in the two largest units: `42 s`, `3 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(count: int) -> str:
    """``count`` bytes in decimal units: `0 B`, `512 B`, `1.5 MB`."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.95 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def age_text(moment: datetime) -> str:
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    return f"{duration_text(seconds)} ago"


def studies_table(studies: Sequence[StudyAnswer]) -> Table:
    table = table_of("id", "name", "state", "trials", "best", "#", "made")
    for study in studies:
        best = study.best
        table.add_row(
            study.id,
            plain(study.name),
            state_text(study.state),
            f"{study.progress.done}/{study.progress.total}",
            f"{study.objective['metric']} {best.value:.4f}" if best else "–",
            str(best.number) if best else "–",
            age_text(study.created_at),
        )
    return table


def study_view(study: StudyAnswer) -> RenderableType:
    """Everything about one study, as a list of facts."""
    facts = fact_list()
    metric, direction = study.objective["metric"], study.objective["direction"]
    counts = {name: n for name, n in study.trials.model_dump().items() if n}
    facts.add_row("study", Text.assemble(plain(study.name), "  ", (study.id, "dim")))
    facts.add_row("state", _study_state(study))
    facts.add_row("trials", ", ".join(f"{n} {name}" for name, n in counts.items()) or "none")
    if study.progress.eta_s is not None:
        facts.add_row("ready in", f"about {duration_text(study.progress.eta_s)}")
    facts.add_row("objective", f"{direction} {metric}")
    facts.add_row("model", plain(study.model))
    facts.add_row("data set", plain(study.dataset))
    if study.labels:
        facts.add_row("labels", plain(", ".join(f"{k}:{v}" for k, v in study.labels.items())))
    if study.best:
        facts.add_row("best trial", f"#{study.best.number}  {metric} {study.best.value:.4f}")
        facts.add_row("", plain(params_text(study.best.params)))
        facts.add_row("validation", _metrics_text(study.best.metrics))
    if study.test:
        times = "once" if study.test.opened == 1 else f"{study.test.opened} times"
        facts.add_row("test", f"{_metrics_text(study.test.metrics)}  (opened {times})")
    if study.disk_bytes:
        facts.add_row("disk", f"{bytes_text(study.disk_bytes)} of models, predictions and logs")
    if study.error:
        facts.add_row("error", plain(f"{study.error.code}: {brief(study.error.detail)}"))
    for warning in study.warnings:
        facts.add_row(Text("warning", "yellow"), plain(warning))
    return facts


def _study_state(study: StudyAnswer) -> Text:
    text = state_text(study.state)
    if study.pause:
        text.append(f"  {pause_text(study)}", style="dim")
    return text


def pause_text(study: StudyAnswer) -> str:
    """What a pause means for the trials of a paused study, and what ends it."""
    if all_trials_done(study):
        return f"all trials are done, the best is left to test; 'bertune resume {study.id}' goes on"
    fate = PAUSES[study.pause or "drain"]
    return f"no new trials start, {fate}; 'bertune resume {study.id}' goes on"


def all_trials_done(study: StudyAnswer) -> bool:
    """Whether nothing is left of a study but to score its best trial on the test split."""
    return study.progress.done == study.progress.total


def stage_text(trial: TrialRow) -> Text:
    """The state, or of a trial at work what it is at."""
    if trial.progress is None or trial.progress.stage is None:
        return state_text(trial.state)
    text = plain(trial.progress.stage.name)
    text.stylize(STATE_STYLES["running"])
    return text


def epoch_text(trial: TrialRow) -> str:
    """`2/3` for a trial in the second of three epochs, `3` for one that ended after three."""
    if trial.progress is not None and trial.progress.epochs is not None:
        return f"{trial.progress.epoch + 1}/{trial.progress.epochs}"
    return "–" if trial.epoch is None else str(trial.epoch + 1)


def counts_text(trial: TrialRow | TrialAnswer) -> str:
    """`120/300 steps`, `1.2 MB of 4.0 GB`, or nothing where its worker does not tell."""
    stage = None if trial.progress is None else trial.progress.stage
    if stage is None:
        return ""
    if stage.unit == "bytes":
        total = "" if stage.total is None else f" of {bytes_text(stage.total)}"
        return bytes_text(stage.done) + total
    total = "" if stage.total is None else f"/{stage.total:,}"
    return plain(f"{stage.done:,}{total} {stage.unit}").plain


def trials_table(trials: Sequence[TrialRow], metric: str, best: int | None = None) -> Table:
    """One row per trial, one column per searched parameter; attempts where a trial took several."""
    retried = any(trial.attempt > 1 for trial in trials)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params or {}))
    table = table_of(
        "#", "state", metric, "epoch", *names, *(["attempt"] if retried else []), "error"
    )
    for trial in trials:
        params = trial.params or {}
        table.add_row(
            f"{trial.number}{' *' if trial.number == best else ''}",
            state_text(trial.state),
            number_text(trial.value),
            epoch_text(trial),
            *(plain(scalar_text(params[name])) if name in params else "–" for name in names),
            *([str(trial.attempt or "–")] if retried else []),
            plain(trial.error.code) if trial.error else "",
        )
    return table


def trial_view(trial: TrialAnswer) -> RenderableType:
    """One trial with its epochs, its scores per class, and its attempts if they tell something."""
    facts = fact_list()
    facts.add_row("trial", f"#{trial.number}, attempt {trial.attempt}")
    facts.add_row("state", state_text(trial.state))
    if trial.progress is not None:
        facts.add_row("at", plain(_progress_text(trial)))
    facts.add_row("params", plain(params_text(trial.params)))
    facts.add_row("value", number_text(trial.value))
    if trial.metrics:
        facts.add_row("metrics", _metrics_text(trial.metrics))
    if trial.error:
        facts.add_row("error", plain_lines(f"{trial.error.code}: {trial.error.detail}"))
    parts: list[RenderableType] = [facts]
    if any(trial.attempt > 1 or _happened(attempt) for attempt in trial.attempts):
        parts.append(attempts_table(trial.attempts))
    if trial.epochs:
        names = list(dict.fromkeys(name for epoch in trial.epochs for name in epoch.metrics))
        epochs = table_of("epoch", *names)
        for epoch in trial.epochs:
            values = (number_text(epoch.metrics.get(name)) for name in names)
            epochs.add_row(str(epoch.epoch + 1), *values)
        parts.append(epochs)
    if trial.per_class:
        classes = table_of("label", "precision", "recall", "f1", "support")
        for score in trial.per_class:
            shares = (number_text(x) for x in (score.precision, score.recall, score.f1))
            name = score.label if score.head == DEFAULT_HEAD else f"{score.head}.{score.label}"
            classes.add_row(plain(name), *shares, str(score.support))
        parts.append(classes)
    return Group(*parts)


def _progress_text(trial: TrialAnswer) -> str:
    """For example: training 120/300 steps, epoch 2 of 3, 40% done, about 3 min 10 s left."""
    progress = trial.progress
    assert progress is not None
    parts = []
    if progress.stage is not None:
        parts.append(f"{progress.stage.name} {counts_text(trial)}")
    if progress.epochs is not None:
        parts.append(f"epoch {progress.epoch + 1} of {progress.epochs}")
    parts.append(f"{progress.share:.0%} done")
    if progress.eta_s is not None:
        parts.append(f"about {duration_text(progress.eta_s)} left")
    return ", ".join(parts)


def attempts_table(attempts: Sequence[AttemptAnswer]) -> Table:
    """What became of each try: who had it, for how long, and how it ended."""
    table = table_of("attempt", "worker", "outcome", "took", "what happened")
    for attempt in attempts:
        ended = attempt.ended_at or datetime.now(UTC)
        table.add_row(
            str(attempt.attempt),
            plain(attempt.worker),
            Text(attempt.outcome or "running"),
            duration_text(max(0.0, (ended - attempt.started_at).total_seconds())),
            plain("; ".join(_happened(attempt))),
        )
    return table


def _happened(attempt: AttemptAnswer) -> list[str]:
    happened = []
    if attempt.resumed_from_epoch is not None:
        happened.append(f"resumed, epochs done: {attempt.resumed_from_epoch}")
    if attempt.error:
        happened.append(f"{attempt.error.code}: {brief(attempt.error.detail)}")
    return happened + attempt.problems


def datasets_table(datasets: Sequence[DatasetAnswer]) -> Table:
    table = table_of("id", "name", "task", "train", "validation", "test", "labels", "made")
    for dataset in datasets:
        rows = (dataset.rows.get(split) for split in ("train", "validation", "test"))
        table.add_row(
            dataset.id,
            plain(dataset.name),
            dataset.task,
            *("–" if n is None else str(n) for n in rows),
            str(len(dataset.labels)),
            age_text(dataset.created_at),
        )
    return table


def dataset_view(dataset: DatasetAnswer) -> RenderableType:
    """What the reader found in a data set: rows per split, per label, and what looks odd."""
    facts = fact_list()
    facts.add_row("data set", Text.assemble(plain(dataset.name), "  ", (dataset.id, "dim")))
    if dataset.origin is not None:
        facts.add_row("hub", plain(_origin_text(dataset.origin)))
    facts.add_row("task", dataset.task)
    columns = ", ".join(f"{role}={name}" for role, name in dataset.columns.items() if name)
    facts.add_row("columns", plain(columns))
    if dataset.heads:
        heads = ", ".join(f"{head} {kind}" for head, kind in sorted(dataset.heads.items()))
        facts.add_row("heads", plain(heads))
    words = "  ".join(f"{name} {value:g}" for name, value in dataset.words.items())
    facts.add_row("words", words)
    facts.add_row("options", plain(_stated_options(dataset.options) or "defaults"))
    splits = table_of("split", "rows", "dropped", "missing", "duplicates", "also in train")
    for split, rows in dataset.rows.items():
        missing = dataset.missing.get(split)
        lacking = {
            f"in {name}": rows for name, rows in dataset.missing_texts.get(split, {}).items()
        }
        splits.add_row(
            split,
            str(rows),
            _counts(dataset.dropped.get(split, {})),
            plain(_counts((missing.model_dump() if missing else {}) | lacking)),
            str(dataset.duplicates.get(split, 0)),
            str(dataset.overlap.get(split, "–")),
        )
    labels = table_of("label", *dataset.label_counts)
    for label in dataset.labels:
        counts = (str(counts.get(label, 0)) for counts in dataset.label_counts.values())
        labels.add_row(plain(label), *counts)
    warnings = (Text.assemble(("warning: ", "yellow"), plain(w)) for w in dataset.warnings)
    return Group(facts, splits, labels, *warnings)


def _stated_options(options: Mapping[str, Any]) -> str:
    """Those that differ from their defaults."""
    defaults = dataclasses.asdict(DataOptions())
    stated = {name: value for name, value in options.items() if value != defaults.get(name)}
    return ", ".join(f"{name}={value}" for name, value in stated.items())


def _counts(counts: Mapping[str, int]) -> str:
    shown = (f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    return ", ".join(shown) or "0"


def _origin_text(origin: HubOrigin) -> str:
    left_out = "".join(f"; {name} left out: {why}" for name, why in origin.left_out.items())
    return f"{origin.hub}, {origin.config}, {origin.revision} at {origin.commit[:12]}{left_out}"


def workers_table(workers: Sequence[WorkerAnswer]) -> Table:
    table = table_of("worker", "state", "device", "trials", "seen")
    for worker in workers:
        device = str((worker.device or {}).get("name", "–"))
        table.add_row(
            plain(worker.name),
            Text(worker.state),
            plain(device),
            plain(", ".join(worker.trials) or "–"),
            age_text(worker.last_seen_at),
        )
    return table


def keys_table(keys: "Sequence[ApiKey]") -> Table:
    table = table_of("id", "name", "made", "revoked")
    for key in keys:
        revoked = age_text(key.revoked_at) if key.revoked_at else "–"
        table.add_row(key.id, plain(key.name), age_text(key.created_at), revoked)
    return table


def validation_view(answer: ValidationAnswer) -> RenderableType:
    """What a spec means, how long the texts are, and what would be cut."""
    facts = fact_list()
    resolved = answer.resolved
    facts.add_row("task", resolved.task)
    facts.add_row("model", plain(resolved.model))
    facts.add_row("objective", f"{resolved.objective['direction']} {resolved.objective['metric']}")
    facts.add_row("trials", str(resolved.budget.get("n_trials", "–")))
    limits = {"study": "timeout_s", "trial": "trial_timeout_s"}
    stated = {name: resolved.budget.get(field) for name, field in limits.items()}
    if any(stated.values()):
        shown = (f"{name} {duration_text(limit_s)}" for name, limit_s in stated.items() if limit_s)
        facts.add_row("time limits", ", ".join(shown))
    lengths = "  ".join(f"{name} {value:g}" for name, value in answer.token_lengths.items())
    facts.add_row("rows", "  ".join(f"{split} {rows}" for split, rows in answer.splits.items()))
    facts.add_row("tokens", lengths)
    facts.add_row("unknown", f"{answer.unknown_share:.2%} of word pieces")
    space = table_of("searched", "values")
    for name, parameter in resolved.search_space.items():
        values = parameter.model_dump(exclude={"type"}, exclude_none=True)
        space.add_row(plain(name), plain(", ".join(f"{k} {v}" for k, v in values.items())))
    parts: list[RenderableType] = [facts, space]
    if answer.truncated:
        cut = table_of("max_length", "rows cut", "tokens lost")
        for length, share in answer.truncated.items():
            cut.add_row(length, f"{share:.1%}", f"{answer.lost_tokens[length]:.1%}")
        parts.append(cut)
    parts.extend(Text.assemble(("warning: ", "yellow"), plain(w)) for w in answer.warnings)
    return Group(*parts)


def finding_view(finding: "Finding") -> Text:
    """One line of the doctor's, and below it what to do."""
    line = Text.assemble(
        (f"{finding.level:<4} ", LEVEL_STYLES[finding.level]),
        (f"{finding.subject}: ", "bold"),
        plain(finding.detail),
    )
    return line.append(f"\n     {plain(finding.advice)}") if finding.advice else line


def _metrics_text(metrics: Mapping[str, float]) -> Text:
    return plain("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def table_of(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        # A header is text of ours or a parameter's name; neither may be read as markup.
        table.add_column(plain(column), overflow="fold")
    return table


def fact_list() -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts

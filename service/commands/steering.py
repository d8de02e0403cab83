"""Commands that change a study already submitted: pause, resume, cancel, extend, delete."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.answering import Output, answering
from service.commands.asking import agree, require_terminal_or
from service.commands.following import answer_ended, follow
from service.commands.options import Server, StudyRef, Yes

if TYPE_CHECKING:
    from studies.wire.studies import StudyAnswer


@answering
def pause(
    output: Output,
    study: StudyRef,
    preempt: Annotated[
        bool,
        typer.Option(
            "--preempt", help="Take running trials back too; they save a checkpoint first."
        ),
    ] = False,
    server: Server = None,
) -> None:
    """Start no more trials of a study until it is resumed; running ones finish."""
    from service.commands.lookup import find_study
    from studies.api import Api

    with Api(server) as client:
        found = client.pause(find_study(client, study).id, "preempt" if preempt else "drain")
    lines = [f"{_named(found)} is {found.state}."]
    if found.trials.running:
        fate = "will be taken back" if preempt else "will finish (--preempt takes them back)"
        lines.append(f"Running trials: {found.trials.running}; they {fate}.")
    output.answer(found, "\n".join([*lines, _goes_on(found)]))


@answering
def resume(output: Output, study: StudyRef, server: Server = None) -> None:
    """Let a paused study go on."""
    from service.commands.lookup import find_study
    from studies.api import Api

    with Api(server) as client:
        found = client.resume(find_study(client, study).id)
    queued = f"{_named(found)} is {found.state}, {found.trials.queued} of its trials queued."
    output.answer(found, f"{queued}\n{_follow_hint(found)}")


@answering
def cancel(output: Output, study: StudyRef, server: Server = None) -> None:
    """Stop a study for good: queued trials are dropped, running ones end at their next report."""
    from service.commands.lookup import find_study
    from studies.api import Api

    with Api(server) as client:
        found = client.cancel(find_study(client, study).id)
    output.answer(found, f"{_named(found)} is {found.state}.")


@answering
def extend(
    output: Output,
    study: StudyRef,
    add_trials: Annotated[int, typer.Argument(metavar="N", min=1, help="How many more trials.")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    server: Server = None,
) -> None:
    """Add N trials to a study that has completed, or still runs; the search goes on from there."""
    from service.commands.lookup import find_study
    from studies.api import Api

    with Api(server) as client:
        found = client.extend(find_study(client, study).id, add_trials)
        extended = f"{_named(found)} is {found.state}, now with {found.progress.total} trials."
        if watch:
            output.say(extended)
            ended = follow(client, found, output)
    if watch:
        answer_ended(output, ended)
    else:
        hint = _goes_on(found) if found.state == "paused" else _follow_hint(found)
        output.answer(found, f"{extended}\n{hint}")


@answering
def delete(output: Output, study: StudyRef, yes: Yes = False, server: Server = None) -> None:
    """Remove a study with its trials, models and pages for good. Its data set stays.

    With --json the study is printed as it was.
    """
    from service.commands.lookup import find_study
    from studies.api import Api

    require_terminal_or(yes)
    with Api(server) as client:
        found = find_study(client, study)
        if not yes:
            _ask(found)
        client.delete(found.id)
    gone = f"{_named(found)} is deleted. Its files leave the server's disk within a minute."
    output.answer(found, gone)


def _ask(study: "StudyAnswer") -> None:
    """End the command unless a person agrees to what will be lost."""
    from service.terminal.views import bytes_text

    stopped = (
        f" Running trials, to be stopped: {study.trials.running}." if study.trials.running else ""
    )
    typer.echo(
        f"{_named(study)} is {study.state}, with {study.progress.total} trials and "
        f"{bytes_text(study.disk_bytes)} of models, predictions and logs.{stopped}",
        err=True,
    )
    agree("Delete all of it for good?", "Nothing was deleted.")


def _goes_on(study: "StudyAnswer") -> str:
    return f"It goes on with 'bertune resume {study.id}'."


def _follow_hint(study: "StudyAnswer") -> str:
    return f"Follow it with 'bertune watch {study.id}'."


def _named(study: "StudyAnswer") -> str:
    return f"{study.name} ({study.id})"

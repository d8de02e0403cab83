"""How a command answers: `--json` and `--quiet` are the same for all, and stated once.

The answer goes to standard output, as something drawn for people, as one JSON document, or with
`--quiet` as what a script would go on with: an id, or nothing. With `--json` every other word goes
to standard error; with `--quiet` there is none, except of what went wrong.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec

import typer

from service.terminal.closed_pipe import abandon_output
from service.terminal.exit_codes import PIPE_CLOSED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from studies.transfer import OnBytes

Stated = ParamSpec("Stated")
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON; all else goes to stderr.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say only what a script needs: an id, or nothing.")
]


@dataclass(frozen=True, slots=True)
class Output:
    """Where one run of a command says what."""

    as_json: bool = False
    quiet: bool = False

    def answer(
        self,
        data: object,
        view: RenderableType,
        essential: str | Iterable[str] = (),
        *,
        width: int | None = None,
    ) -> None:
        """The command's answer: ``data`` are models of the wire, or plain data; ``essential`` are
        the lines of `--quiet`; ``width`` are the columns of a view that may be wider than the
        terminal."""
        if self.as_json:
            from pydantic_core import to_json

            # Not json.dumps: no program reads its NaN.
            typer.echo(to_json(data, indent=2).decode())
        elif self.quiet:
            for line in [essential] if isinstance(essential, str) else essential:
                typer.echo(line)
        else:
            self._print(view, width)

    def item(self, data: object, view: str, essential: str) -> None:
        """One of the answers of a command that goes on answering; in JSON a document on a line."""
        if self.as_json:
            from pydantic_core import to_json

            typer.echo(to_json(data).decode())
        elif self.quiet:
            typer.echo(essential)
        else:
            self._print(view)
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A sentence beside the answer, for people."""
        if not self.quiet:
            self._print(text)

    def note(self, text: str) -> None:
        """A sentence about the work, which is no part of what was asked for."""
        if not self.quiet:
            typer.echo(text, err=True)

    def console(self) -> Console:
        """Where to draw for people; silent with `--quiet`."""
        from service.terminal.views import make_console

        console = make_console(stderr=self.as_json)
        console.quiet = self.quiet
        return console

    def transfer(self, what: str, then: str) -> AbstractContextManager[OnBytes | None]:
        """What to tell of the bytes that go; drawn on standard error, for a person alone."""
        from service.terminal.transfer_bar import transfer_bar
        from service.terminal.views import make_console

        console = make_console(stderr=True)
        console.quiet = self.quiet or self.as_json
        return transfer_bar(console, what, then)

    @property
    def asks(self) -> bool:
        """Whether there is a person to be asked something."""
        return not self.as_json and not self.quiet and sys.stdin.isatty()

    def _print(self, view: RenderableType, width: int | None = None) -> None:
        from service.terminal.views import plain_lines

        console = self.console()
        console.width = width or console.width
        shown = plain_lines(view) if isinstance(view, str) else view
        console.print(shown, soft_wrap=isinstance(view, str))


def answering(
    command: Callable[Concatenate[Output, Stated], None],
) -> Callable[..., None]:
    """``command`` with `--json` and `--quiet`, which it is handed as its `Output`.

    When nobody reads the output any more the command ends, without a word.
    """
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "output"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("as_json", AsJson), ("quiet", Quiet))
    ]

    @functools.wraps(command)
    def run(*, as_json: bool, quiet: bool, **stated: object) -> None:
        try:
            command(Output(as_json, quiet), **stated)  # type: ignore[call-arg, arg-type]
            sys.stdout.flush()
        except BrokenPipeError:
            abandon_output()
            raise typer.Exit(PIPE_CLOSED) from None

    parameters = [*own, *shared]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run

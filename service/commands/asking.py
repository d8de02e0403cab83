"""Asks a person before something is done that cannot be taken back."""

import sys

import typer

from service.terminal.exit_codes import REFUSED


def require_terminal_or(yes: bool) -> None:
    """Wrong usage where `--yes` was not said and nobody can be asked."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask in; confirm with --yes.")


def agree(question: str, otherwise: str) -> None:
    """End the command, saying ``otherwise``, unless a person agrees."""
    if not typer.confirm(question, err=True):
        typer.echo(otherwise, err=True)
        raise typer.Exit(REFUSED)

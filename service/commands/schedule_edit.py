"""A schedule as it is to be: fields set by their paths, or all of it changed in an editor."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
import yaml
from pydantic import ValidationError

from model.errors import InputError
from service.terminal.failures import explain
from studies.connection import ClientError
from studies.wire.schedules import ScheduleSpec
from studies.yaml_text import read_yaml

TIMINGS = ("cron", "at", "every_s")


def edited(spec: ScheduleSpec, changes: Sequence[str]) -> ScheduleSpec:
    """``spec`` with ``FIELD=VALUE`` texts applied in turn. A value is YAML, and text where it is
    none; null takes a field away, and a stated timing replaces the one there was.

    Raises `typer.BadParameter`, `pydantic.ValidationError`.
    """
    document = _said(spec)
    for change in changes:
        field, equals, text = change.partition("=")
        if not (field and equals):
            raise typer.BadParameter(f"{change!r} is not FIELD=VALUE.", param_hint="--set")
        value = _value(text)
        if field in TIMINGS and value is not None:
            for name in TIMINGS:
                document.pop(name, None)
        _set(document, field, value)
    return ScheduleSpec.model_validate(document)


def edited_by_hand(spec: ScheduleSpec) -> ScheduleSpec:
    """What a person made of it in their editor; they may try again when it is wrong."""
    text = yaml.safe_dump(_said(spec), sort_keys=False, allow_unicode=True)
    while True:
        text = _in_editor(text)
        try:
            return ScheduleSpec.model_validate(read_yaml(text))
        except (InputError, ValidationError) as error:
            _, message = explain(error) or (0, str(error))
            typer.echo(message, err=True)
            typer.confirm("Edit it again?", default=True, abort=True, err=True)


def _said(spec: ScheduleSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_none=True)


def _value(text: str) -> Any:
    try:
        return read_yaml(text)
    except InputError:  # such as `*/5 * * * *`
        return text


def _set(document: dict[str, Any], field: str, value: Any) -> None:
    *outer, last = field.split(".")
    for name in outer:
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            raise typer.BadParameter(f"{field}: {name} holds no fields.", param_hint="--set")
        document = inner
    if value is None:
        document.pop(last, None)
    else:
        document[last] = value


def _in_editor(text: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with TemporaryDirectory(prefix="bertune-") as scratch:
        file = Path(scratch) / "schedule.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = f"The editor {editor!r} did not end well ({error}); nothing was changed."
            raise ClientError(f"{said} Set EDITOR, or say --set FIELD=VALUE.") from error
        return file.read_text(encoding="utf-8")

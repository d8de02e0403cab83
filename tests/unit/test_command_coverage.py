"""Every command of `bertune` is called by some test that runs it against a real server."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from service.cli import app

ACCEPTANCE = Path(__file__).parents[1] / "acceptance"


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
        return
    for name, one in inner.items():
        yield from leaves(one, (*path, name))


def first_words() -> Iterator[tuple[str, ...]]:
    """How the texts begin that stand beside each other in a call, a list or a tuple of these
    tests: one word, and two."""
    for file in sorted(ACCEPTANCE.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                parts = node.args
            elif isinstance(node, ast.List | ast.Tuple):
                parts = node.elts
            else:
                continue
            texts = [part.value for part in parts if isinstance(part, ast.Constant)]
            words = [text for text in texts if isinstance(text, str)]
            if "service.cli" in words:  # [sys.executable, "-m", "service.cli", …]
                words = words[words.index("service.cli") + 1 :]
            yield tuple(words[:1])
            yield tuple(words[:2])


COMMANDS = list(leaves(get_command(app)))


@pytest.fixture(scope="module")
def called() -> set[tuple[str, ...]]:
    return set(first_words())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_is_run_by_an_acceptance_test(
    command: tuple[str, ...], called: set[tuple[str, ...]]
) -> None:
    assert command in called


def test_there_are_commands_to_look_for() -> None:
    assert ("schedule", "add") in COMMANDS

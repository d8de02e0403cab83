"""The README's tree, settings, error codes and state diagrams are those of the code."""

import ast
import re
from pathlib import Path

from service.settings import Settings
from studies.states import STUDY_MOVES, TRIAL_MOVES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("model", "studies", "service")
ERRORS_WITH_A_CODE_FIRST = {"InputError", "TrainingError"}


def section(title: str) -> str:
    """The README's text from a heading to the next heading of the same or a higher level."""
    level, text = re.findall(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", README, re.M | re.S)[0]
    assert level
    return str(text)


def first_column(table: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", table, re.M))


def test_every_setting_has_a_row_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `BERTUNE_(\w+)` \| ([^|]*) \|", section("Settings"), re.M))
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    test_only = {"TEST_DATA", "TEST_POSTGRES_URL"}
    assert set(rows) - test_only == set(fields)
    for name, field in fields.items():
        value = rows[name].strip().strip("`")
        if isinstance(field.default, int | float):
            assert float(value.replace(",", "")) == float(field.default), name
        elif isinstance(field.default, str):
            assert value == field.default, name


def codes_in_source() -> set[str]:
    """Every literal error code: first argument of an input error, ``code=`` and ``code = ``."""
    codes: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                codes |= _codes(node)
    return codes


def _codes(node: ast.AST) -> set[str]:
    found: list[ast.expr] = []
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ERRORS_WITH_A_CODE_FIRST:
            found += node.args[:1]
        found += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
    if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["code"]:
        found.append(node.value)
    return {
        leaf.value
        for expression in found
        for leaf in ast.walk(expression)
        if isinstance(leaf, ast.Constant)
        and isinstance(leaf.value, str)
        and re.fullmatch(r"[a-z][a-z0-9_]+", leaf.value)
    }


def test_every_error_code_has_a_row() -> None:
    assert codes_in_source() == first_column(section("Error codes"))


def test_the_tree_lists_every_module() -> None:
    listed = set(re.findall(r"^[│ ├└─]*([\w./-]+\.py)\b", section("The tree"), re.M))
    present = {
        path.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and "versions" not in path.parts
    }
    assert listed == present


def edges(diagram: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.M))


def test_the_state_diagrams_are_the_tables_of_moves() -> None:
    study, trial = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", README, re.S)
    assert edges(study) == {(old, new) for old, news in STUDY_MOVES.items() for new in news}
    assert edges(trial) == {(old, new) for old, news in TRIAL_MOVES.items() for new in news}

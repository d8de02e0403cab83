"""The README's tree, settings, error codes and state diagrams are those of the code."""

import ast
import re
from pathlib import Path

from model.config import RULES, Task, TrainConfig
from service.settings import Settings
from service.terminal.exit_codes import MEANINGS
from studies.resolution import resolve
from studies.spec import StudySpec
from studies.states import STUDY_MOVES, TRIAL_MOVES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("model", "studies", "service")
CODE_ARGUMENTS = {"fail_trial": slice(2, 3), "_answer": slice(1, 3), "ApiError": slice(1, 2)}
"""Where a call names an error code; errors otherwise name it first."""
CODE_KEYWORDS = {"code", "missing", "error"}


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
    test_only = {"TEST_DATA", "TEST_POSTGRES_URL", "CHAOS", "CHAOS_SEED"}
    assert set(rows) - test_only == set(fields)
    for name, field in fields.items():
        value = rows[name].strip().strip("`")
        if isinstance(field.default, int | float):
            assert float(value.replace(",", "")) == float(field.default), name
        elif isinstance(field.default, str):
            assert value == field.default, name


def test_every_training_setting_has_a_row_with_its_default() -> None:
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section("Training settings"), re.M)
    listed: dict[str, str] = {}
    for names, defaults in rows:
        settings = re.findall(r"`([\w.<>]+)`", names)
        listed |= dict(zip(settings, defaults.split(", ", len(settings) - 1), strict=True))
    spec = StudySpec(name="tickets", dataset="0")
    heads: dict[str, Task] = {"topic": "single_label", "mood": "single_label"}
    resolved = resolve(spec, task="multi_task", max_positions=512, heads=heads)
    assert resolved.training["loss_weight.topic"] == float(listed.pop("loss_weight.<head>"))
    config = TrainConfig()
    assert listed.keys() == RULES.keys()
    for name, shown in listed.items():
        default = getattr(config, name)
        if default is None:
            assert shown in ("none", "the model's own"), name
        elif isinstance(default, str):
            assert shown == default, name
        else:
            assert float(re.split("[ ,]", shown)[0]) == default, name


def codes_in_source() -> set[str]:
    """Every literal error code, wherever the code base writes one down."""
    modules = [
        ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    ]
    return {
        code
        for module in modules
        for constants in [_constants(module)]
        for node in ast.walk(module)
        for expression in _code_expressions(node)
        for code in _literals(constants.get(ast.unparse(expression), expression))
    }


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    """What the module's own constants stand for."""
    return {
        ast.unparse(target): node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


def _code_expressions(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        found = node.args[CODE_ARGUMENTS.get(name, slice(name.endswith("Error")))]
        return found + [word.value for word in node.keywords if word.arg in CODE_KEYWORDS]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return [value for key, value in pairs if key is not None and _literals(key) == {"error"}]
    if isinstance(node, ast.Assign):
        targets = [ast.unparse(target) for target in node.targets]
        if any(target.endswith(("code", "_CODES")) for target in targets):
            return [node.value]
    return []


def _literals(expression: ast.expr) -> set[str]:
    """The texts that an expression may give; what a call inside it is handed is none of them."""
    if isinstance(expression, ast.IfExp):
        return _literals(expression.body) | _literals(expression.orelse)
    if isinstance(expression, ast.Dict):
        return set().union(*(_literals(value) for value in expression.values))
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return (
            {expression.value} if re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", expression.value) else set()
        )
    return set()


def test_the_exit_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", section("The command line"), re.M)
    assert {int(code): meaning for code, meaning in rows} == MEANINGS


def test_every_error_code_has_a_row() -> None:
    assert codes_in_source() == first_column(section("Error codes"))


def tree_paths(text: str) -> set[str]:
    """The modules of an indented tree, as paths."""
    paths: set[str] = set()
    folders: list[str] = []
    for indent, name in re.findall(r"^( *)([\w.-]+(?:/$|\.py\b))", text, re.M):
        folders = folders[: len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.add("".join(folders) + name)
    return paths


def test_the_tree_lists_every_module() -> None:
    present = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and "versions" not in path.parts
    }
    assert tree_paths(section("The tree")) == present


def edges(diagram: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.M))


def test_the_state_diagrams_are_the_tables_of_moves() -> None:
    study, trial = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", README, re.S)
    assert edges(study) == {(old, new) for old, news in STUDY_MOVES.items() for new in news}
    assert edges(trial) == {(old, new) for old, news in TRIAL_MOVES.items() for new in news}

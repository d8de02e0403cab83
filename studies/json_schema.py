"""The JSON Schemas of studies and schedules, so that editors complete and check their files.

Pydantic's own, and what it cannot know: which training settings there are, and that a file may
name local data. `python -m studies.json_schema` writes the files in `studies/schemas`, which are
shipped and served.
"""

import ast
import inspect
import json
import math
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from model.config import (
    LOSS_WEIGHT,
    LOSS_WEIGHT_RULE,
    RULES,
    DataOptions,
    LabelColumn,
    Rule,
    TrainConfig,
)
from model.heads import HEAD_NAME
from model.measures import METRICS
from studies.spec import StudySpec
from studies.wire.schedules import ScheduleSpec
from studies.wire.sources import HubDataset

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = files("studies") / "schemas"

Schema = dict[str, Any]


def study_schema() -> Schema:
    """A study as the API takes it."""
    schema = _of(StudySpec)
    parts, fields = schema["$defs"], schema["properties"]
    documented = _documented(TrainConfig)
    weight = f"^{re.escape(LOSS_WEIGHT)}{HEAD_NAME}$"
    said = "Of `multi_task`: how much the head's mean loss counts; 1 where nothing is said."
    parts["Settings"] = _closed(
        {name: {"description": documented[name], **_values(rule)} for name, rule in RULES.items()},
        patternProperties={weight: {"description": said, **_values(LOSS_WEIGHT_RULE)}},
    )
    fields["training"] = _reference("Settings", fields["training"])
    fields["enqueue"]["items"] = _reference("Settings")
    fields["search_space"]["anyOf"][0] = _closed(
        {name: {"description": documented[name], **_ranges(rule)} for name, rule in RULES.items()},
        patternProperties={weight: {"description": said, **_ranges(LOSS_WEIGHT_RULE)}},
    )
    names = sorted({name for metrics in METRICS.values() for name in metrics})
    of_heads = rf"^{HEAD_NAME}\.({'|'.join(names)})$"
    parts["Objective"]["properties"]["metric"]["anyOf"] = [{"enum": names}, {"pattern": of_heads}]
    return schema


def study_file_schema() -> Schema:
    """A study's file for `bertune submit`, which may also name local files, or the hub."""
    schema = study_schema()
    path = {"type": "string", "minLength": 1}
    local = _closed(
        {
            "train": path | {"description": "The rows to learn from."},
            "validation": path | {"description": "The rows that trials are scored on."},
            "test": path | {"description": "The rows that the best model is scored on, once."},
            "options": _options(),
            "name": path | {"description": "What the data set is called."},
        },
        required=["train"],
    )
    hub = _of(HubDataset, dialect=False)
    hub["properties"]["options"] = _options()
    schema["$defs"]["HubDataset"] = hub
    schema["properties"]["dataset"] = {
        "description": "A data set's id, the path of a local file, local files by split, or a data "
        "set of the Hugging Face hub.",
        "anyOf": [path, local, _reference("HubDataset")],
    }
    return schema


def schedule_schema() -> Schema:
    """A schedule, with its study spelled out."""
    schema, study = _of(ScheduleSpec), study_schema()
    schema["$defs"] |= study.pop("$defs")
    for source in ("HubSource", "PathSource"):
        schema["$defs"][source]["properties"]["options"] = _options()
    del study["$schema"], study["title"]
    study["required"] = ["name"]  # `data` stands in for `dataset`
    schema["$defs"]["Study"] = study
    schema["properties"]["study"] = _reference("Study", schema["properties"]["study"])
    return schema


SCHEMAS = {"study": study_file_schema, "schedule": schedule_schema}
"""What is written, by the name of its file and address."""


def schema_text(name: str) -> str:
    """A schema as it is shipped; ``name`` is one of `SCHEMAS`."""
    return (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")


def render(schema: Schema) -> str:
    """As a file's text."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _of(model: type[BaseModel], *, dialect: bool = True) -> Schema:
    schema = model.model_json_schema()
    _require_tags(schema, schema.get("$defs", {}))
    _tidy(schema)
    if not dialect:  # a part of another
        return schema
    return {"$schema": DIALECT, "title": model.__name__, **schema}


def _require_tags(node: Any, parts: Schema) -> None:
    """What tells the members of a union apart must be said, although each has it as a default."""
    if isinstance(node, dict):
        found = node.pop("discriminator", None)
        for reference in (found or {}).get("mapping", {}).values():
            part = parts[reference.rpartition("/")[2]]
            tags = {found["propertyName"], *part.get("required", ())}
            part["required"] = [name for name in part["properties"] if name in tags]
        for item in node.values():
            _require_tags(item, parts)
    elif isinstance(node, list):
        for item in node:
            _require_tags(item, parts)


def _tidy(node: Any) -> None:
    """Take out the titles that pydantic makes of names, and join the lines of descriptions."""
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if isinstance(said := node.get("description"), str):
            node["description"] = " ".join(said.split())
        for item in node.values():
            _tidy(item)
    elif isinstance(node, list):
        for item in node:
            _tidy(item)


def _documented(kind: type) -> dict[str, str]:
    """What stands below the fields of one of `model`'s dataclasses, which know no pydantic."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(said.value.value.replace("None", "null").split())
        for field, said in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }


def _values(rule: Rule) -> Schema:
    """What a setting may be; whole numbers may be written with a point."""
    nothing = [None] if rule.optional else []
    if rule.kind == "choice":
        return {"enum": [*rule.choices, *nothing]}
    number = "integer" if rule.kind == "int" else "number"
    values: Schema = {"type": [number, "null"] if rule.optional else number}
    if math.isfinite(rule.low):
        values["exclusiveMinimum" if rule.above_low else "minimum"] = rule.low
    if math.isfinite(rule.high):
        values["maximum"] = rule.high
    return values


def _ranges(rule: Rule) -> Schema:
    """How a setting may be searched."""
    kinds = {"int": ["IntRange"], "float": ["FloatRange"], "choice": []}[rule.kind]
    return {"oneOf": [_reference(kind) for kind in (*kinds, "Choices")]}


def _reference(part: str, field: Schema | None = None) -> Schema:
    """A reference, with what was said of the field that it stands in."""
    kept = {key: value for key, value in (field or {}).items() if key in ("description", "default")}
    return {"$ref": f"#/$defs/{part}", **kept}


def _closed(properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


def _options() -> Schema:
    schema = TypeAdapter(DataOptions).json_schema()
    parts = schema.pop("$defs")
    (column,) = parts.values()
    for name, said in _documented(LabelColumn).items():
        column["properties"][name] = {"description": said, **column["properties"][name]}
    stated = schema["properties"]["label_columns"]["anyOf"][0]["additionalProperties"]
    stated["anyOf"] = [{"type": "string"}, column]
    _tidy(schema)
    for name, said in _documented(DataOptions).items():
        schema["properties"][name] = {"description": said, **schema["properties"][name]}
    return {**schema, "description": "How to read the files.", "additionalProperties": False}


def main() -> None:
    folder = Path(str(FOLDER))
    folder.mkdir(exist_ok=True)
    for name, make in SCHEMAS.items():
        (folder / f"{name}.schema.json").write_text(render(make()), encoding="utf-8")


if __name__ == "__main__":
    main()

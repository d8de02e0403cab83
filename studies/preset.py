"""The studies that ship with the project: documents that lack a data set only."""

from importlib.resources import files
from typing import Any

from model.errors import InputError
from studies.yaml_text import read_yaml

_FOLDER = files("studies") / "presets"


def preset_names() -> list[str]:
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _FOLDER.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    """The document of a preset. Raises `InputError` that names the known ones."""
    if name not in preset_names():
        known = ", ".join(preset_names())
        raise InputError("unknown_preset", f"{name!r} is no preset. Known: {known}.", ("preset",))
    document: dict[str, Any] = read_yaml((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return document

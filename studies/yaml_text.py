"""Reads YAML as people write it: `5e-5` is a number, and a key stands once.

The YAML 1.1 that PyYAML follows takes `5e-5` for a string, since it has no dot; YAML 1.2 and
everyone who writes a learning rate take it for a float. PyYAML also lets the last of two equal keys
win, where somebody meant both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from model.errors import InputError

_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_MERGE = "<<"
Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe: builds plain data only."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document of a text, and where its parts stand there."""

    data: Any
    line: int
    """Its first line, counted from 1."""
    lines: Mapping[Path, int]
    """The line of each key and item, by its path."""

    def line_of(self, where: Sequence[str | int]) -> int:
        """The line of a part, or of the innermost part around it that is there."""
        path: Path = ()
        for part in where:
            if (*path, part) in self.lines:
                path = (*path, part)
        return self.lines.get(path, self.line)


def read_yaml(text: str) -> Any:
    """The data in ``text``, which is one document. Raises `InputError` naming the line that is no
    YAML."""
    documents = read_yaml_documents(text)
    if len(documents) > 1:
        place = (f"line {documents[1].line}",)
        raise InputError("invalid_yaml", "A second document begins; one is expected.", place)
    return documents[0].data if documents else None


def read_yaml_documents(text: str) -> list[YamlDocument]:
    """The documents in ``text``, which lines of ``---`` divide; empty ones are left out. Raises
    `InputError` naming the line that is no YAML."""
    documents = []
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node: yaml.Node = loader.get_node()  # type: ignore[assignment]  # there is one
                lines: dict[Path, int] = {}
                _find_lines(node, (), lines, set())
                data = loader.construct_document(node)
                documents.append(YamlDocument(data, node.start_mark.line + 1, lines))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (f"line {mark.line + 1}",) if mark else ()
        raise InputError("invalid_yaml", f"Not YAML: {error.problem}.", place) from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # such as a 30th of February
        raise InputError("invalid_yaml", f"Not YAML: {error}.") from error
    except RecursionError as error:
        raise InputError("invalid_yaml", "Nested too deeply to be read.") from error
    return [document for document in documents if document.data is not None]


def _find_lines(node: yaml.Node, path: Path, lines: dict[Path, int], seen: set[int]) -> None:
    """Raises `InputError` for a key that stands twice. A node that is referred to again is looked
    through once: references may nest without end."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _find_lines(item, (*path, index), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == _MERGE:
                continue
            line, inner = key.start_mark.line + 1, (*path, key.value)
            if inner in lines:
                detail = f"Not YAML: {key.value} stands here and in line {lines[inner]}."
                raise InputError("invalid_yaml", detail, (f"line {line}",))
            lines[inner] = line
            _find_lines(value, inner, lines, seen)

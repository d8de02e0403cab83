"""Reads YAML as people write it: `5e-5` is a number.

The YAML 1.1 that PyYAML follows takes `5e-5` for a string, since it has no dot; YAML 1.2 and
everyone who writes a learning rate take it for a float.
"""

import re
from typing import Any

import yaml

from model.errors import InputError

_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """Safe: builds plain data only."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The data in ``text``. Raises `InputError` naming the line that is no YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = (f"line {mark.line + 1}",) if mark else ()
        raise InputError("invalid_yaml", f"Not YAML: {error.problem}.", place) from error
    except yaml.YAMLError as error:
        raise InputError("invalid_yaml", f"Not YAML: {error}.") from error

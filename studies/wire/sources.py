"""Where the server itself reads a data set from: files under an allowed root, or a hub."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from model.config import Split
from studies.wire.base import Request

NO_NUL = r"^[^\x00]{1,1000}$"


class HubSource(Request):
    """A data set of the Hugging Face hub; its revision is resolved and frozen when it is read."""

    hub: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=200)
    """`org/name`"""
    config: str | None = Field(None, max_length=200)
    """Its configuration, where it has several."""
    revision: str = Field("main", min_length=1, max_length=200)
    """A branch, a tag or a commit."""
    splits: dict[Split, str] = {}
    """The hub's name of a split, where it is not the usual one."""
    options: dict[str, Any] = {}
    """Those of an upload (`model.config.DataOptions`)."""


class HubDataset(HubSource):
    """The same as a body of its own, instead of an upload."""

    name: str | None = Field(None, pattern=NO_NUL, max_length=300)
    """How lists call it; by default `org/name`."""


class PathSource(Request):
    """Files on the server's machine, under a root of BERTUNE_DATA_DIRS.

    A schedule's paths may hold the fields of its name template, such as ``{yesterday}``.
    """

    train: str = Field(pattern=NO_NUL)
    """The rows to learn from."""
    validation: str | None = Field(None, pattern=NO_NUL)
    """The rows that trials are scored on; null: some of `train` are held out."""
    test: str | None = Field(None, pattern=NO_NUL)
    """The rows that the best model is scored on, once."""
    options: dict[str, Any] = {}
    """Those of an upload (`model.config.DataOptions`)."""


def _kind(value: object) -> str:
    stated = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "hub_source" if "hub" in stated else "path_source"


# Told apart before they are checked: a fault in one is not told as a lack of the other.
DataSource = Annotated[
    Annotated[HubSource, Tag("hub_source")] | Annotated[PathSource, Tag("path_source")],
    Discriminator(_kind),
]

"""Studies: their documents, the search space, and the client of a Bertune server."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.client import Client as Client
    from studies.spec import StudySpec as StudySpec

__all__ = ["Client", "StudySpec"]


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that importing one module of the package loads no HTTP client.
    if name == "Client":
        from studies.client import Client

        return Client
    if name == "StudySpec":
        from studies.spec import StudySpec

        return StudySpec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

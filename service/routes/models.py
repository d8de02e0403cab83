"""The files of `local:` models, which workers fetch from the server."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from service.context import Context
from service.errors import NotFoundError
from service.routes.documented import errors
from service.store.studies import model_facts

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "/{key}/files/{path:path}",
    summary="Download a local model's file",
    response_class=FileResponse,
    responses=errors(404, 409, 422),
)
def download_model_file(
    key: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The model's `key`")],
    path: Annotated[str, Path(pattern=r"^[^\x00]{1,500}$")],
    context: Context,
) -> FileResponse:
    """Only files of `local:` models that some study uses; workers fetch them here."""
    with context.database.reading() as session:
        facts = model_facts(session, key)
    if facts is None:
        raise NotFoundError(f"No study uses a local model {key}.", code="unknown_model")
    file = context.models.local_file(facts, path)
    sha256 = next(entry["sha256"] for entry in facts["files"] if entry["path"] == path)
    return FileResponse(file, headers={"ETag": f'"{sha256}"'})

"""The JSON Schemas of what people write in files, for their editors."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from studies.json_schema import schema_text

MEDIA_TYPE = "application/schema+json"

router = APIRouter(prefix="/v1/schemas", tags=["schemas"])
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {}}, "description": "The schema"}
}


@router.get(
    "/study.json",
    summary="Read the JSON Schema of a study",
    response_class=Response,
    responses=_ANSWER,
)
def read_study_schema() -> Response:
    """Of the file that `bertune submit` takes. Needs no key, as editors send none."""
    return Response(schema_text("study"), media_type=MEDIA_TYPE)


@router.get(
    "/schedule.json",
    summary="Read the JSON Schema of a schedule",
    response_class=Response,
    responses=_ANSWER,
)
def read_schedule_schema() -> Response:
    """Of a schedule as the API takes it. Needs no key, as editors send none."""
    return Response(schema_text("schedule"), media_type=MEDIA_TYPE)

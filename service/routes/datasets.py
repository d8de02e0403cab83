"""Data sets: upload, list, read, and the normalised files that workers fetch."""

from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from service.context import Context
from service.errors import NotFoundError
from service.intake.dataset_facts import stored_warnings
from service.intake.ingest import ingest
from service.intake.sources import read_source
from service.intake.upload import ReceivedData
from service.routes.cursors import Cursor, Limit, cursor_moment, cut_page, decode_cursor
from service.routes.documented import errors
from service.store.datasets import get_dataset, get_file, list_datasets, split_files
from service.store.tables import Dataset, DatasetFile
from studies.wire.base import Page
from studies.wire.datasets import DatasetAnswer, HubOrigin, StoredFile
from studies.wire.sources import HubDataset

router = APIRouter(prefix="/v1/datasets", tags=["data sets"])
DatasetId = Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", description="A data set's id")]

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": HubDataset.model_json_schema(),
                "example": {"hub": "org/name", "revision": "main", "options": {"text": "sentence"}},
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["train"],
                    "properties": {
                        "train": {
                            "type": "string",
                            "format": "binary",
                            "description": "CSV, TSV, JSONL or Parquet with a text and a label",
                        },
                        "validation": {"type": "string", "format": "binary"},
                        "test": {"type": "string", "format": "binary"},
                        "options": {
                            "type": "string",
                            "description": "JSON: column names, delimiter, encoding, fractions …",
                            "example": '{"label": "topic", "validation_fraction": 0.2}',
                        },
                        "name": {"type": "string", "example": "tickets"},
                    },
                }
            },
        },
    }
}
HUB_READERS = CapacityLimiter(4)
"""So many data sets of the hub are read at once, on threads of their own: a reading takes minutes,
and all other requests share the usual threads."""


@router.post(
    "",
    status_code=201,
    summary="Upload a data set, or name one of the hub",
    openapi_extra=_FORM,
    responses=errors(400, 413, 415, 422, 507),
)
async def upload_dataset(received: ReceivedData, context: Context) -> DatasetAnswer:
    """The files are read once, checked and stored in one normal form. A JSON body names a data set
    of the Hugging Face hub, whose revision is resolved to a commit; the answer's ``origin`` tells
    which.

    The id names the content: the same files with the same fractions give the same data set.
    """
    if isinstance(received, HubDataset):
        store = partial(read_source, context, received, received.name)
        dataset_id = await to_thread.run_sync(store, limiter=HUB_READERS)
    else:
        store = partial(ingest, context.database, context.folders, received)
        dataset_id = await to_thread.run_sync(store)
    return await to_thread.run_sync(read_dataset, dataset_id, context)


@router.get("", summary="List data sets", responses=errors(422))
def read_datasets(
    context: Context, cursor: Cursor = None, limit: Limit = 50
) -> Page[DatasetAnswer]:
    """Newest first."""
    place = decode_cursor(cursor, str, str)
    after = None if place is None else (cursor_moment(place[0]), str(place[1]))
    with context.database.reading() as session:
        datasets, next_cursor = cut_page(
            list_datasets(session, limit=limit, after=after),
            limit,
            lambda dataset: (dataset.created_at.isoformat(), dataset.id),
        )
        files = split_files(session, [dataset.id for dataset in datasets])
    items = [_answer(dataset, files[dataset.id]) for dataset in datasets]
    return Page(items=items, next_cursor=next_cursor)


@router.get("/{dataset_id}", summary="Read a data set's facts", responses=errors(404, 422))
def read_dataset(dataset_id: DatasetId, context: Context) -> DatasetAnswer:
    """What the reader found: rows, labels, missing values, duplicates, word counts."""
    with context.database.reading() as session:
        dataset = get_dataset(session, dataset_id)
        return _answer(dataset, split_files(session, [dataset_id])[dataset_id])


@router.get(
    "/{dataset_id}/files/{name}",
    summary="Download a normalised Parquet file",
    response_class=FileResponse,
    responses=errors(404, 422),
)
def download_file(
    dataset_id: DatasetId,
    name: Annotated[str, Path(pattern=r"^[^\x00]{1,100}$", examples=["train", "indices-0"])],
    context: Context,
) -> FileResponse:
    """``name`` is train, validation, test, or ``indices-<study seed>``.

    The ETag is the file's sha256.
    """
    with context.database.reading() as session:
        file = get_file(session, dataset_id, name)
    path = context.folders.dataset(dataset_id) / f"{file.split}.parquet"
    if not path.is_file():
        raise NotFoundError(f"The file {path.name} is gone from the disk.", code="file_gone")
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "private, max-age=31536000, immutable"}
    return FileResponse(path, media_type="application/vnd.apache.parquet", headers=headers)


def _answer(dataset: Dataset, files: list[DatasetFile]) -> DatasetAnswer:
    stored = {file.split: StoredFile(sha256=file.sha256, bytes=file.bytes) for file in files}
    facts = {key: value for key, value in dataset.summary.items() if key != "files"}
    return DatasetAnswer(
        id=dataset.id,
        name=dataset.name,
        options=dataset.options,
        warnings=stored_warnings(dataset),
        files=stored,
        origin=None if dataset.origin is None else HubOrigin(**dataset.origin),
        created_at=dataset.created_at,
        **facts,
    )

"""A confusion matrix in the form that the client asked for: JSON, CSV or an SVG image."""

import csv
import io
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError
from service.pages.confusion_svg import confusion_svg
from service.store.trials import StoredMatrix
from studies.wire.trials import ConfusionAnswer

Format = Literal["json", "csv", "svg"]
MEDIA_TYPES: dict[str, Format] = {
    "application/json": "json",
    "text/csv": "csv",
    "image/svg+xml": "svg",
}
# An image that is opened as a page must not run anything, whatever a label holds.
_SVG_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


class NotAcceptableError(ServiceError):
    status = 406
    code = "not_acceptable"


def confusion_answer(matrix: StoredMatrix, *, split: str) -> ConfusionAnswer:
    """Fill the zeros in; rows are true labels, columns predictions, in the data set's order."""
    cells = matrix.cells
    return ConfusionAnswer(
        labels=matrix.labels,
        matrix=[[cells.get((true, got), 0) for got in matrix.labels] for true in matrix.labels],
        split=split,
        head=matrix.head,
        kind=matrix.kind,
        unit=matrix.unit,
        rows=sum(cells.values()),
    )


def choose_format(request: Request, stated: Format | None) -> Format:
    """``?format=`` wins; else the type that `Accept` likes best, JSON among equals.

    Raises `NotAcceptableError` when `Accept` allows none of them.
    """
    if stated is not None:
        return stated
    accept = request.headers.get("accept", "*/*")
    ranked = [(_quality(accept, media), form) for media, form in MEDIA_TYPES.items()]
    quality, best = max(ranked, key=lambda pair: pair[0])
    if quality == 0:
        known = ", ".join(MEDIA_TYPES)
        raise NotAcceptableError(
            f"A confusion matrix comes as {known}.", where=["header", "accept"]
        )
    return best


def _quality(accept: str, media: str) -> float:
    """The weight that an Accept header gives a media type (RFC 9110, 12.5.1); 0: not wanted."""
    ranges = ("*/*", media.split("/")[0] + "/*", media)
    best = (-1, 0.0)
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in ranges:
            best = max(best, (ranges.index(name), _weight(parameters)))
    return best[1]


def _weight(parameters: list[str]) -> float:
    stated = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    try:
        return min(max(float(stated), 0.0), 1.0)
    except ValueError:
        return 0.0


def render(answer: ConfusionAnswer, form: Format, *, title: str) -> Response:
    """The response in this form. ``title`` is the image's."""
    headers = {"Vary": "Accept"}
    if form == "csv":
        return Response(_csv(answer), media_type="text/csv; charset=utf-8", headers=headers)
    if form == "svg":
        image = confusion_svg(answer.labels, answer.matrix, title=title, unit=answer.unit)
        return Response(image, media_type="image/svg+xml", headers=headers | _SVG_HEADERS)
    return JSONResponse(answer.model_dump(mode="json"), headers=headers)


def _csv(answer: ConfusionAnswer) -> str:
    """A header of predicted labels, then a line per true label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["true \\ predicted", *answer.labels])
    for label, row in zip(answer.labels, answer.matrix, strict=True):
        writer.writerow([label, *row])
    return text.getvalue()

"""The API's own page, with scripts that this server serves: it works without the internet."""

from importlib.resources import files
from typing import cast

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

DOCS = "/v1/docs"
ASSETS = "/v1/docs-assets"


def mount_api_docs(app: FastAPI) -> None:
    """Serve Swagger UI at `/v1/docs`; the package `fastapi-swagger` brings its files."""
    folder = str(files("fastapi_swagger") / "resources")
    app.mount(ASSETS, StaticFiles(directory=folder))

    @app.get(DOCS, include_in_schema=False)
    def api_docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=cast(str, app.openapi_url),
            title=f"{app.title} API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
        )

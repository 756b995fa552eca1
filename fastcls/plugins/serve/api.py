"""The network for programs: `POST /predict` takes pictures and gives JSON, as `fastcls predict --json` does."""

from __future__ import annotations

from typing import Any

import anyio
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fastcls.errors import DataError, FastclsError, UsageError
from fastcls.inference.answers import Table
from fastcls.plugins.serve.receiving import SECONDS, TooLarge, answered, foreign, limited
from fastcls.plugins.serve.site import Site
from fastcls.runfolder.text import clean
from fastcls.settings import arguments
from fastcls.version import __version__

QUEUE = 1000  # requests that may wait for their turn; above, 503
BATCHES = 8  # of how many of the largest pictures a request may have the bytes
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"  # of /docs
PARAMETERS = ("top_k", "threshold", "probabilities")  # of a query


def routes(site: Site, room: anyio.CapacityLimiter) -> list[Route]:
    """/predict, /health, and their description: /openapi.json for programs, /docs for people."""
    described = openapi(site)

    async def predict(request: Request) -> Response:
        if foreign(request):
            return refusal("Requests from other sites are refused.", 403)
        if room.statistics().tasks_waiting >= QUEUE:
            return refusal("Too many requests are waiting. Try again in a moment.", 503)
        try:
            query: dict[str, Any] = dict(request.query_params)
            if wrong := [name for name in query if name not in PARAMETERS]:
                raise UsageError(f"Unknown parameter {wrong[0]!r}; expected {', '.join(PARAMETERS)}.")
            table = _table(site, **query)

            def predicted(pictures: list[tuple[str, bytes]]) -> Response:
                rows = list(table.rows(site.predict(pictures)))
                failed = all(row["error"] for row in rows)
                return JSONResponse({"calibrated": site.calibrated, "predictions": rows}, 422 if failed else 200)

            return await answered(room, lambda: _pictures(request, site), predicted, refusal)
        except FastclsError as problem:
            return refusal(str(problem), 400 if isinstance(problem, (UsageError, DataError)) else 500)

    async def health(request: Request) -> Response:
        about: dict[str, Any] = {"run": site.run.resolve().name, "recipe": clean(site.record.get("recipe") or "")}
        about |= {"classes": [clean(name) for name in site.explainer.classes], "calibrated": site.calibrated}
        return JSONResponse({"status": "ok", **about, "fastcls": __version__})

    async def specification(request: Request) -> Response:
        return JSONResponse(described)

    async def docs(request: Request) -> Response:
        page = site.templates.get_template("api.html.j2").render(api=described, address=request.base_url)
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    return [
        Route("/predict", predict, methods=["POST"]),
        Route("/health", health),
        Route("/openapi.json", specification),
        Route("/docs", docs),
    ]


def refusal(reason: str, status: int) -> Response:
    """After which the connection ends: what is still on its way to it is not read."""
    return JSONResponse({"error": reason}, status, {"connection": "close"})


@arguments.checked
def _table(site: Site, top_k: int = 0, threshold: float = 0, probabilities: bool = False) -> Table:
    """What a query asks for."""
    known = site.explainer
    classes = [clean(name) for name in known.classes]
    return Table(classes, top_k, probabilities, threshold, target=known.target, thresholds=known.thresholds)


async def _pictures(request: Request, site: Site) -> list[tuple[str, bytes]]:
    """(name, bytes) of each picture: the files of a form, or the body itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [("", await limited(request, site.most_bytes).body())]
    try:
        async with limited(request, BATCHES * site.most_bytes).form(max_files=site.most_files, max_fields=0) as form:
            files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
            found = [(file.filename or "", await file.read()) for file in files]
    except HTTPException as problem:
        raise UsageError(f"The form cannot be read: {problem.detail}") from None
    if not found:
        raise UsageError("The form has no file.", "curl -F files=@photo.jpg …")
    if large := next((name for name, data in found if len(data) > site.most_bytes), None):
        raise TooLarge(f"{large} is larger than {site.most_bytes / 1e6:g} MB. Resize the image.")
    return found


def openapi(site: Site) -> dict[str, Any]:
    """The description of what `routes` answers, by OpenAPI 3.1."""
    text, number = {"type": ["string", "null"]}, {"type": ["number", "null"]}
    row = {
        "type": "object",
        "required": ["path", "prediction", "confidence", "error"],
        "properties": {"path": {"type": "string"}, "prediction": text, "confidence": number, "error": text},
        "additionalProperties": {"description": "top1, p1, … with top_k; p:CLASS with probabilities"},
    }
    answer = {
        "type": "object",
        "required": ["calibrated", "predictions"],
        "properties": {"calibrated": {"type": "boolean"}, "predictions": {"type": "array", "items": row}},
    }
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {"type": "array", "items": binary["schema"], "maxItems": site.most_files}
    several = {"schema": {"type": "object", "required": ["files"], "properties": {"files": files}}}

    def says(description: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": schema}}}

    parameters = [
        {"name": name, "in": "query", "schema": {"type": kind, "default": default}, "description": description}
        for name, kind, default, description in (
            ("top_k", "integer", 0, "Add the K most likely classes."),
            ("threshold", "number", 0, "A prediction with a lower probability is 'unsure'."),
            ("probabilities", "boolean", False, "Add the probability of every class."),
        )
    ]
    most = f"{site.most_bytes / 1e6:g} MB"
    return {
        "openapi": "3.1.0",
        "info": {"title": f"fastcls: {clean(site.run.resolve().name)}", "version": __version__},
        "paths": {
            "/predict": {
                "post": {
                    "summary": "Predict the class of one or several images",
                    "parameters": parameters,
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/octet-stream": binary,
                            "image/*": binary,
                            "multipart/form-data": several,
                        },
                    },
                    "responses": {
                        "200": says("One row per image; `error` is the reason for a missing prediction.", answer),
                        "422": says("The same, if no image can be read.", answer),
                        "400": says("A parameter or the form is invalid.", error),
                        "403": says("The request came from a page of another site.", error),
                        "408": says(f"The images did not arrive within {SECONDS} s.", error),
                        "413": says(f"More than {most} per image, or {BATCHES} times that in all.", error),
                        "503": says(f"Too many requests: {QUEUE:,} are waiting.", error),
                    },
                }
            },
            "/health": {
                "get": {
                    "summary": "Check that the server is running; returns the run and its classes",
                    "responses": {"200": says("It is running.", {"type": "object"})},
                }
            },
        },
    }

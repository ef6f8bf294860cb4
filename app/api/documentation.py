"""What strangers read first: `/`, `/docs`, and the words of the API document's operations."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from app.api.dependencies import limited_by_address
from app.problems import NotFound
from methods.jobtype import JobType

_STATIC = Path(__file__).parents[1] / "static"
_ASSETS = {
    "swagger-ui-bundle.js": ("vendor/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("vendor/swagger-ui.css", "text/css"),
    "docs.js": ("docs.js", "text/javascript"),
    "docs.css": ("docs.css", "text/css"),
    "home.css": ("home.css", "text/css"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

TAGS: list[dict[str, Any]] = [
    {"name": "jobs", "description": "Submit a job of any type, follow it, read what comes out."},
    {"name": "job types", "description": "What can be asked, with the schemas of spec and result."},
    {"name": "files", "description": "Inputs that jobs read, sent once and named by their id."},
    {"name": "artifacts", "description": "Files that jobs made beside their results."},
    {"name": "account", "description": "Your key, your quotas, API keys and the audit log."},
    {"name": "webhooks", "description": "Messages to your own server when jobs end."},
    {"name": "service", "description": "Whether the service works, and what its problems mean."},
]

#: Summaries of operations by their id; those of new jobs are the titles of the job types.
SUMMARIES: Mapping[str, str] = {
    "list_jobs": "List jobs",
    "get_job": "Read a job, or wait for it to change",
    "get_job_result": "Read a result",
    "list_job_events": "Read or follow the events of a job",
    "list_job_metrics": "Read figures over time, such as losses",
    "list_job_attempts": "List the starts of a job",
    "cancel_job": "Cancel a job",
    "retry_job": "Submit an ended job again",
    "delete_job": "Delete a job and its data",
    "get_job_report": "Read the report of a job",
    "create_report_link": "Make a link to a report",
    "get_shared_report": "Read a report by its link",
    "upload_file": "Upload an input",
    "list_files": "List inputs",
    "get_file": "Describe an input",
    "delete_file": "Delete an input",
    "list_job_artifacts": "List the files that a job made",
    "get_artifact_content": "Download a file that a job made",
    "list_models": "List the models that jobs may name",
    "get_me": "Say whose key this is",
    "get_usage": "Read usage and quotas",
    "create_api_key": "Make an API key",
    "list_api_keys": "List API keys",
    "get_api_key": "Describe an API key",
    "revoke_api_key": "Revoke an API key",
    "list_audit_records": "Read the audit log",
    "list_privacy_releases": "List differentially private releases",
    "create_webhook_endpoint": "Register a webhook endpoint",
    "list_webhook_endpoints": "List webhook endpoints",
    "get_webhook_endpoint": "Describe a webhook endpoint",
    "change_webhook_endpoint": "Change or pause a webhook endpoint",
    "delete_webhook_endpoint": "Delete a webhook endpoint",
    "rotate_webhook_secret": "Replace the secret of an endpoint",
    "test_webhook_endpoint": "Send a test message",
    "list_webhook_deliveries": "List messages and their deliveries",
    "replay_webhook_delivery": "Send a message again",
    "list_job_types": "List job types",
    "get_job_type": "Describe a job type, with its schemas",
    "get_problem_type": "Explain a problem type",
    "livez": "Say that the process lives",
    "readyz": "Say whether jobs can be accepted",
}


def name_operations(document: dict[str, Any]) -> None:
    """Give every operation of an API document a summary in plain words."""
    for methods in document["paths"].values():
        for operation in methods.values():
            if operation["operationId"] in SUMMARIES:
                operation["summary"] = SUMMARIES[operation["operationId"]]


def create_router(registry: Mapping[str, JobType]) -> APIRouter:
    """The pages; they are no part of the API document."""
    limited = [Depends(limited_by_address)]
    router = APIRouter(include_in_schema=False, dependencies=limited)
    home = _home(registry.values())

    @router.api_route("/", methods=["GET", "HEAD"])
    async def read_home(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(home, headers=_HEADERS | {"Vary": "Accept"})
        return JSONResponse(
            {
                "service": "datassay",
                "version": version("datassay-server"),
                "docs": "/docs",
                "openapi": "/v1/openapi.json",
                "job_types": "/v1/job-types",
            },
            headers={"Vary": "Accept"},
        )

    @router.api_route("/docs", methods=["GET", "HEAD"])
    async def read_docs() -> HTMLResponse:
        return HTMLResponse(_DOCS, headers=_HEADERS)

    @router.get("/docs/{name}")
    async def read_asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise NotFound(f"There is no asset {name[:64]!r}.")
        file, media_type = _ASSETS[name]
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return FileResponse(_STATIC / file, media_type=media_type, headers=headers)

    return router


_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Datassay API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/docs.css">
</head>
<body>
<main id="docs"></main>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/docs.js"></script>
</body>
</html>
"""


def _home(job_types: Any) -> str:
    rows = "".join(
        f'<li><a href="/v1/job-types/{escape(one.name)}"><code>{escape(one.name)}</code></a>: '
        f"{escape(one.summary)}</li>"
        for one in job_types
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Datassay</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/home.css">
</head>
<body>
<main>
<h1>Datassay</h1>
<p>This service assays what goes into a model and what comes out of it. Programs submit jobs here
and read their results; every request but a few needs an API key.</p>
<ul>
<li><a href="/docs">The API, with every field explained</a></li>
<li><a href="/v1/openapi.json">The same for machines (OpenAPI)</a></li>
<li><a href="/readyz">Whether the service can take jobs now</a></li>
</ul>
<p>From a shell: <code>datassay --url ADDRESS types</code> lists what can be asked,
<code>datassay submit TYPE --help</code> how.</p>
<h2>Job types</h2>
<ul>{rows}</ul>
</main>
</body>
</html>
"""

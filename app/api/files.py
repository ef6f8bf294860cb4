"""Inputs that clients upload and artifacts that jobs produce."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, File, Query, UploadFile
from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.api import presenters
from app.api.dependencies import (
    ArtifactId,
    Cursor,
    FileId,
    FilesRead,
    FilesUpload,
    FilesWrite,
    JobId,
    JobsRead,
    Limit,
    ServicesDep,
)
from app.problems import (
    Conflict,
    Forbidden,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    Unauthenticated,
    responses,
)
from app.schemas.jobs import Artifact, Page
from app.schemas.jobs import File as FileBody
from infra.settings import Settings
from infra.storage import CHUNK

_ALWAYS = (Unauthenticated, Forbidden)
_MULTIPART_OVERHEAD = 64 * 1024


def create_router(settings: Settings) -> APIRouter:
    """The routes of files and artifacts."""
    router = APIRouter(prefix="/v1")
    add = router.add_api_route
    one = responses(*_ALWAYS, NotFound)
    upload = responses(InvalidRequest, *_ALWAYS, PayloadTooLarge, InvalidSpec, QuotaExceeded)
    add(
        "/files",
        upload_file,
        methods=["POST"],
        status_code=201,
        tags=["files"],
        responses=upload,
        max_body_size=settings.max_file_bytes + _MULTIPART_OVERHEAD,
    )
    paged = responses(InvalidRequest, *_ALWAYS)
    add("/files", list_files, methods=["GET"], tags=["files"], responses=paged)
    add("/files/{file_id}", get_file, methods=["GET"], tags=["files"], responses=one)
    add(
        "/files/{file_id}",
        delete_file,
        methods=["DELETE"],
        status_code=204,
        tags=["files"],
        responses=responses(*_ALWAYS, NotFound, Conflict),
    )
    add(
        "/jobs/{job_id}/artifacts",
        list_job_artifacts,
        methods=["GET"],
        tags=["artifacts"],
        responses=one,
    )
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    add(
        "/artifacts/{artifact_id}/content",
        get_artifact_content,
        methods=["GET"],
        tags=["artifacts"],
        response_class=FileResponse,
        responses={**one, 200: {"content": binary}},
    )
    return router


async def upload_file(
    caller: FilesUpload,
    services: ServicesDep,
    file: Annotated[UploadFile, File(description="The input, as a multipart part.")],
) -> FileBody:
    """Upload an input; refer to it by its `file_...` id."""
    name = (file.filename or "unnamed").replace("\x00", "")[-255:]
    media_type = (file.content_type or "application/octet-stream").replace("\x00", "")[:127]
    row = await services.files.upload(caller, name, media_type, file.file)
    return presenters.file(row, services.settings.file_retention)


async def list_files(
    caller: FilesRead,
    services: ServicesDep,
    sha256: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="Only files with these bytes.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FileBody]:
    """Your inputs, newest first."""
    rows, following = await services.files.page(caller, limit, cursor, sha256)
    retention = services.settings.file_retention
    return Page(items=[presenters.file(row, retention) for row in rows], next_cursor=following)


async def get_file(file_id: FileId, caller: FilesRead, services: ServicesDep) -> FileBody:
    """One input: name, size, digest."""
    row = await services.files.get(caller, file_id)
    return presenters.file(row, services.settings.file_retention)


async def delete_file(file_id: FileId, caller: FilesWrite, services: ServicesDep) -> None:
    """Delete an input that no unfinished job needs."""
    await services.files.delete(caller, file_id)


async def list_job_artifacts(
    job_id: JobId, caller: JobsRead, services: ServicesDep
) -> Page[Artifact]:
    """What a succeeded job left beside its result."""
    rows = await services.files.artifacts(caller, job_id)
    return Page(items=[presenters.artifact(row) for row in rows])


async def get_artifact_content(
    artifact_id: ArtifactId, caller: JobsRead, services: ServicesDep
) -> Any:
    """The bytes of an artifact; ranges are served where storage is local."""
    row = await services.files.artifact(caller, artifact_id)
    storage = services.files.storage
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    headers = {"Repr-Digest": f"sha-256=:{digest}:", "X-Content-Type-Options": "nosniff"}
    try:
        if (path := storage.local_path(row.storage_key)) is not None:
            there = path.stat()
            return _StoredFile(
                path,
                media_type=row.media_type,
                filename=row.name,
                headers=headers,
                stat_result=there,
            )
        stream = _chunks(storage.open(row.storage_key))
    except FileNotFoundError as error:
        # Deleted since the row was read.
        raise NotFound(f"There is no artifact {artifact_id[:64]}.") from error
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(row.name)}"
    headers["Content-Length"] = str(row.size)
    return StreamingResponse(stream, media_type=row.media_type, headers=headers)


class _StoredFile(FileResponse):
    """A file that may be deleted until it is open: the answer begins only then."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            while held:
                await send(held.pop())
            await send(message)

        try:
            await super().__call__(scope, receive, hold)
        except FileNotFoundError as error:
            raise NotFound("The bytes of the artifact were deleted a moment ago.") from error


def _chunks(reader: BinaryIO) -> Iterator[bytes]:
    with reader:
        while chunk := reader.read(CHUNK):
            yield chunk

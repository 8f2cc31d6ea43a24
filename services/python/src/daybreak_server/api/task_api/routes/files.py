"""Routes that serve a task's files: artifacts and the latest preview."""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError
from daybreak_server.api.http.responses import BlobResponse
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.domain.artifact_names import attachment
from daybreak_server.domain.tasks import ArtifactRef

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["files"])

    @routes.get("/v1/tasks/{id}/artifacts/{name}", **openapi_specs.ARTIFACT)
    async def artifact(request: Request, id: str, name: str, caller: Caller) -> Response:
        """A file of a task: its bytes (with range requests), or a redirect to a URL that expires."""
        ref = await _find(ctx, caller, id, name)
        url = await asyncio.to_thread(
            ctx.services.blobs.url,
            ref.key,
            expires_s=ctx.services.settings.artifacts.url_expires_s,
            filename=ref.name,
        )
        if url is not None:
            return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store"})
        return _bytes(ctx, request, ref)

    @routes.head("/v1/tasks/{id}/artifacts/{name}", include_in_schema=False)
    async def artifact_head(request: Request, id: str, name: str, caller: Caller) -> Response:
        """The file's headers. They come from the task's record, so this route does not call the blob store."""
        ref = await _find(ctx, caller, id, name)
        return Response(headers={**_headers(ref), "Content-Length": str(ref.size_bytes)})

    @routes.get("/v1/tasks/{id}/preview", **openapi_specs.PREVIEW)
    async def preview(id: str, caller: Caller) -> Response:
        """The latest preview image of a running task."""
        record, _ = await ctx.record(caller, id)
        found = await ctx.services.store.preview(record.id)
        if found is None:
            raise ApiError(
                ErrorCode.NO_SUCH_ARTIFACT,
                f"The task {record.id} has no preview. A preview exists only while the task runs, if its workload "
                "makes previews.",
            )
        image, content_type = found
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return Response(image, headers=headers, media_type=content_type)

    return routes


async def _find(ctx: Dependencies, caller: Principal, task: str, name: str) -> ArtifactRef:
    record, _ = await ctx.record(caller, task)
    for ref in record.artifacts:
        if ref.name == name:
            return ref
    names = ", ".join(ref.name for ref in record.artifacts)
    detail = (
        f"Its artifacts: {names}." if names else "It has none yet: artifacts appear when the task succeeds."
    )
    raise ApiError(
        ErrorCode.NO_SUCH_ARTIFACT,
        f"The task {record.id} has no artifact {name[:MAX_FIELD_CHARS]!r}. {detail}",
    )


def _headers(ref: ArtifactRef) -> dict[str, str]:
    return {
        "Content-Type": ref.content_type,
        "Content-Disposition": attachment(ref.name),
        "ETag": f'"{ref.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600, immutable",
        "X-Content-Type-Options": "nosniff",
    }


def _bytes(ctx: Dependencies, request: Request, ref: ArtifactRef) -> Response:
    headers = _headers(ref)
    known = request.headers.get("if-none-match", "")
    if known == "*" or headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    start, length, status = 0, ref.size_bytes, 200
    range_header = request.headers.get("range")
    if range_header is not None and request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        part = byte_range(range_header, ref.size_bytes)
        if part is not None:
            start, length, status = part[0], part[1], 206
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{ref.size_bytes}"
    return BlobResponse(
        ctx.services.blobs, ref.key, start=start, length=length, status=status, headers=headers
    )


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The start and the length of the part that a ``Range`` header requests.

    ``None`` if the header is invalid, names several ranges, or uses another unit than bytes. The header is then
    ignored, and the response is the whole file.

    :raises ApiError: ``bad_range`` if the range lies outside the file.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        end = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < start:
            return None  # RFC 9110: an invalid range is ignored.
    else:
        start, end = max(0, size - int(match[2])), size - 1
    if start > end:
        raise ApiError(
            ErrorCode.BAD_RANGE,
            f"The Range lies outside the file, which has {size:,} bytes. Request a part of the file.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end - start + 1

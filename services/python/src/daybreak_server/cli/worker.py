"""``daybreakd worker``: checks the addresses of a worker before anything starts."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from daybreak.wire.workers import WORKER_ID
from daybreak_server.cli.run import fail
from daybreak_server.model_worker.worker import WorkerAddress
from daybreak_server.settings.rules.addresses import listening_host, server_url


def address_of(
    worker_id: str | None, *, host: str, port: int, manager_url: str, public_url: str | None
) -> WorkerAddress:
    """The address of a worker. If an option is wrong, print a line for each problem and exit with code 2."""
    problems: list[str] = []

    def checked(option: str, check: Callable[[str], object], value: str) -> None:
        try:
            check(value)
        except ValueError as exc:
            problems.append(f"{option}: {exc}")

    checked("--manager-url (MANAGER_URL)", server_url, manager_url)
    checked("--host (WORKER_HOST)", listening_host, host)
    if public_url is not None:
        checked("--public-url (PUBLIC_URL)", _without_path, public_url)
    worker_id = worker_id or socket.gethostname()
    if not re.fullmatch(WORKER_ID, worker_id):
        problems.append(
            f"--worker-id (WORKER_ID): {worker_id!r} cannot be used; write 1 to 63 letters, digits, `.`, `_` and `-`, "
            "beginning with a letter or digit"
        )
    if problems:
        fail(problems, code=2)
    return WorkerAddress(
        id=worker_id,
        host=listening_host(host),
        port=port,
        manager_url=manager_url,
        public_url=public_url.rstrip("/") if public_url else None,
    )


def _without_path(url: str) -> None:
    server_url(url)
    if urlsplit(url).path.strip("/"):
        raise ValueError(
            "gateways send requests to /v1/… of this host, so the URL must not have a path; remove the path"
        )

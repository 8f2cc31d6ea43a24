"""Who may change workers and models.

A worker receives clients' requests, and a model becomes a command line that runs on the workers' machines. So a client
that changes workers or models must be on this machine, or send ``workers.token`` or ``admin.token``. A worker can
register only with ``workers.token``, or without a token if it is on this machine. Everyone may see which models there
are.
"""

from __future__ import annotations

from typing import NoReturn

from starlette.requests import Request

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import bearer_token, has_token, is_local
from daybreak_server.api.errors import ApiError
from daybreak_server.settings.tree import Settings


class Access:
    """The rules, with the tokens of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._workers_token = settings.workers.token
        self._tokens = (settings.workers.token, settings.admin.token)

    def allows(self, request: Request) -> bool:
        """Whether the caller may change workers and models, and see workers' addresses and models' sources."""
        return is_local(request) or has_token(request, *self._tokens)

    def require(self, request: Request) -> None:
        """Refuse the request if :meth:`allows` does not allow it.

        :raises ApiError: ``no_key`` if the client sends no token, or the server has none; ``forbidden`` if the token is
            wrong.
        """
        if self.allows(request):
            return
        self._refuse(request)

    def require_of_worker(self, request: Request) -> None:
        """Refuse a worker that :meth:`require` refuses, and a worker whose token is not ``workers.token``.

        A worker with a token accepts only requests that carry this token, and gateways send ``workers.token``. With
        any other token, even ``admin.token``, the worker would answer each request with 401.

        :raises ApiError: as :meth:`require` does; ``forbidden`` also if the token is ``admin.token``.
        """
        if bearer_token(request) is not None and not has_token(request, self._workers_token):
            if not has_token(request, *self._tokens):
                self._refuse(request)
            raise ApiError(
                ErrorCode.FORBIDDEN,
                "The token in the header Authorization is the server's admin.token, but a worker must send "
                "workers.token: gateways send it with each request to the worker. Set workers.token to one secret on "
                "the server and on the worker (DAYBREAK_WORKERS__TOKEN).",
            )
        self.require(request)

    def _refuse(self, request: Request) -> NoReturn:
        if not any(self._tokens):
            raise ApiError(
                ErrorCode.NO_KEY,
                "This server has no token for workers and models. So only clients on its own machine may change them, "
                "and workers there must send no token. Set workers.token or admin.token on the server, and send it as "
                "Authorization: Bearer ….",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if bearer_token(request) is None:
            raise ApiError(
                ErrorCode.NO_KEY,
                "Changing workers and models needs a token. Send the server's workers.token or admin.token as "
                "Authorization: Bearer ….",
                headers={"WWW-Authenticate": "Bearer"},
            )
        raise ApiError(
            ErrorCode.FORBIDDEN,
            "The token in the header Authorization is neither the server's workers.token nor its admin.token.",
        )

"""Chooses the function that answers a request, by the request's method and path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from daybreak_server.workloads.serving import Request, RequestError, Response

Answer = Callable[[Request], Response]


class Paths:
    """The paths of a workload."""

    def __init__(self, answers: Mapping[tuple[str, str], Answer]) -> None:
        self._answers = answers

    def answer(self, request: Request) -> Response:
        """The answer to a request. :raises RequestError: 404 or 405 if there is no such path or method."""
        found = self._answers.get((request.method, request.path))
        if found is not None:
            return found(request)
        methods = [method for method, path in self._answers if path == request.path]
        if methods:
            raise RequestError(405, f"This path has the method {methods[0]}.", code="method_not_allowed")
        known = ", ".join(f"{method} {path}" for method, path in self._answers)
        raise RequestError(
            404, f"This pool has no path {request.path[:200]}. It has: {known}.", code="not_found"
        )

"""The errors of a task store."""

from __future__ import annotations


class StoreError(Exception):
    """Base class of the errors of a task store. Those of sessions and audio are in ``ports/sessions.py``.

    ``StoreError``
      ├── ``StoreUnavailableError``    cannot be reached or timed out: temporary, retry
      │     └── ``StoreRefusedError``  refuses our user or password, until an administrator corrects them
      ├── ``StoreFullError``           has no memory for new tasks, sessions or audio: temporary
      ├── ``QueueFullError``           the pool's limit on waiting tasks is reached: temporary
      ├── ``SessionsFullError``        a sessions pool has no room: temporary
      ├── ``AudioBacklogError``        too much of a session's audio waits for a model: temporary
      ├── ``AudioGapError``            audio was skipped: send it from the position that the error names
      ├── ``SessionUnknownError``      there is no such session: permanent
      ├── ``SessionEndedError``        the session has ended: permanent
      ├── ``IdempotencyMismatchError`` the key was used with another body: permanent
      ├── ``EventsTrimmedError``       the reader fell too far behind, and events are gone: begin after the newest event
      └── ``ConflictError``            the task's state does not allow this: permanent
    """


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time."""


class StoreRefusedError(StoreUnavailableError):
    """The store refuses the configured user or password."""


class StoreFullError(StoreError):
    """The store has no memory left for new tasks, sessions or audio. Running tasks continue."""


class QueueFullError(StoreError):
    """The pool's queue is full."""


class IdempotencyMismatchError(StoreError):
    """The tenant already used this idempotency key in this pool, with another body, for a task that still exists."""


class EventsTrimmedError(StoreError):
    """Events that the reader has not seen yet were trimmed. The reader must begin again after the newest event."""


class ConflictError(StoreError):
    """The task's state does not allow this."""

"""What a task store raises."""

from __future__ import annotations


class StoreError(Exception):
    """Base of what a store raises.

    ``StoreError``
      ├── ``StoreUnavailableError``    cannot be reached or timed out: temporary, try again
      │     └── ``StoreRefusedError``  refuses our user or password: until somebody corrects them
      ├── ``StoreFullError``           has no memory for new tasks: temporary, running tasks go on
      ├── ``QueueFullError``           the pool's own bound on waiting tasks is reached: temporary
      ├── ``IdempotencyMismatchError`` the key was used with another body: permanent
      ├── ``EventsTrimmedError``       a reader fell so far behind that events are gone: begin at the tail
      └── ``ConflictError``            the task's state does not allow this: permanent
    """


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time."""


class StoreRefusedError(StoreUnavailableError):
    """The store refuses the user or the password that we have."""


class StoreFullError(StoreError):
    """The store has no memory left for new tasks."""


class QueueFullError(StoreError):
    """The pool has as many waiting tasks as it may."""


class IdempotencyMismatchError(StoreError):
    """The tenant has used the idempotency key with another body, in this pool, for a task that is still kept."""


class EventsTrimmedError(StoreError):
    """Events between what a reader has and what there is have been dropped; it begins again at the tail."""


class ConflictError(StoreError):
    """The task's state does not allow this."""

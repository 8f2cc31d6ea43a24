"""Pages of cache memory, and the table of the pages of one session.

The keys and values of a language model are stored in one tensor of pages, which is reserved once. A session
has a table of the pages that hold its positions, oldest first. When the window slides, whole turns leave it,
and pages without a visible position return to the pool. So the memory of a session does not grow with its
length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from daybreak_server.workloads.speech.window import first_visible


class OutOfPagesError(RuntimeError):
    """There are not enough free pages. The limit on the number of sessions prevents this: it assumes the worst case."""


class PagePool:
    """The free pages. Each page is a number."""

    def __init__(self, pages: int, page_size: int) -> None:
        self.pages, self.page_size = pages, page_size
        self._free = list(range(pages))[::-1]

    @property
    def used(self) -> int:
        """The number of pages that belong to sessions."""
        return self.pages - len(self._free)

    def take(self, count: int) -> list[int]:
        """Take ``count`` pages.

        :raises OutOfPagesError: if there are not enough. Then it takes none.
        """
        if count > len(self._free):
            raise OutOfPagesError(f"{count} pages are needed, and {len(self._free)} are free")
        return [self._free.pop() for _ in range(count)]

    def release(self, pages: Sequence[int]) -> None:
        """Free pages."""
        self._free.extend(pages)


class PageTable:
    """The positions of one session that the model sees, and the pages that hold them.

    With pages of four positions::

        position   4  5  6  7 │ 8  9 10 11 │12 13 14 15
        page       ── 17 ──── │ ── 3 ───── │ ── 9 ─────
                   ▲     ▲                        ▲
                   base  visible                  end

    ``base`` is the first position of the first page. The model sees the positions from ``visible`` to before ``end``.
    Positions before ``visible`` have left the window, but share a page with a position that the model sees. Positions
    from ``end`` on are free.
    """

    def __init__(self, pool: PagePool, window: int) -> None:
        self._pool, self._window = pool, window
        self.pages: deque[int] = deque()
        self.base = self.visible = self.end = 0
        self._turns: deque[int] = deque()

    def begin_turn(self) -> None:
        """Begin the next turn. Drop the turns that have left the window, and free the pages without a visible position.

        Does nothing if the present turn has no position yet, because its first step has failed.
        """
        if self._turns and not self._turns[-1]:
            return
        gone = first_visible(list(self._turns), self._window)
        self.visible += sum(self._turns.popleft() for _ in range(gone))
        self._turns.append(0)
        while self.pages and self.base + self._pool.page_size <= self.visible:
            self._pool.release([self.pages.popleft()])
            self.base += self._pool.page_size
        if not self.pages:
            self.base = self.visible

    def extend(self, count: int) -> None:
        """Make room for ``count`` new positions of the present turn.

        :raises OutOfPagesError: if there are not enough free pages.
        """
        missing = self.end + count - self.base - len(self.pages) * self._pool.page_size
        if missing > 0:
            self.pages.extend(self._pool.take(-(-missing // self._pool.page_size)))
        self.end += count
        self._turns[-1] += count

    def take_back(self, count: int) -> None:
        """Undo :meth:`extend` after a step that failed. The pages stay in the table, for the next step."""
        self.end -= count
        self._turns[-1] -= count

    def free(self) -> None:
        """Free all pages."""
        self._pool.release(self.pages)
        self.pages.clear()


def pages_at_most(window: int, longest_turn: int, page_size: int) -> int:
    """The most pages that a session can have, for the window and the longest turn.

    The first visible position may be anywhere in the first page.
    """
    return -(-(window + longest_turn + page_size - 1) // page_size)

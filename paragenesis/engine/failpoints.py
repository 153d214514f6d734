"""Failpoints: the places where a crash is tried out.

Before and after every step that changes something outside this process (a commit, a file, a dispatched item) the code
says `reach("what comes next")`. In use that does nothing. The crash tests put a hook there which, at the N-th place
that is reached, kills the process or raises, and do so for every N.
"""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reach(place: str) -> None:
    """Say that a place is reached."""
    if hook is not None:
        hook(place)

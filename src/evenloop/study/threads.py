"""When a thread has ended for the system too, not only for Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["settled"]


def settled(threads: Sequence[threading.Thread], patience: float = 2.0) -> None:
    """Returns when the system too has done with threads that ended, where it tells (Linux).

    Python calls a thread ended while torch may still clear what the thread held; an interpreter
    that ends in that moment, as after Ctrl-C, may be aborted.
    """
    tasks = [Path(f"/proc/self/task/{thread.native_id}") for thread in threads if thread.native_id]
    until = time.monotonic() + patience
    while any(task.exists() for task in tasks) and time.monotonic() < until:
        time.sleep(0.001)

"""Threads that have ended for Python and may not have for the system."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from evenloop.study.threads import settled

TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not TASKS.exists(), reason="reads the threads of a process from /proc")
def test_no_ended_thread_is_left_for_the_system() -> None:
    for _ in range(300):
        threads = [threading.Thread(target=bool) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        settled(threads)
        assert not any((TASKS / str(thread.native_id)).exists() for thread in threads)


def test_patience_ends_and_threads_not_begun_are_not_waited_for() -> None:
    held = threading.Event()
    thread = threading.Thread(target=held.wait)
    thread.start()
    started = time.monotonic()
    settled([thread, threading.Thread(target=bool)], patience=0.05)
    assert time.monotonic() - started < 2
    held.set()
    thread.join()

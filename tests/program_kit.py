"""Programs that a test starts beside itself: they say one word when all they need is loaded."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["ready", "started"]


def started(program: str, *words: str) -> subprocess.Popen[str]:
    """The Python text `program`, begun with `words` as its arguments."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=pipe, stdout=pipe, text=True
    )


def ready(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """The program, as soon as it has said that it is ready."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process

"""The last look at the processes that this program has started: none outlives it."""

from __future__ import annotations

import multiprocessing

_GONE_SECONDS = 1.0  # for the system to take a killed process away


def end_children() -> None:
    """For a program that ends: kill what is still there, such as a process whose closing waited behind something long."""
    children = multiprocessing.active_children()
    for child in children:
        child.kill()
    for child in children:
        child.join(timeout=_GONE_SECONDS)

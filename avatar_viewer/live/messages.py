"""Lines for the artist: what a session has to say, and how an exception becomes one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..errors import InputError


@dataclass(frozen=True)
class Message:
    """A line for the artist."""

    text: str
    is_error: bool = False


class Say(Protocol):
    """Where a part of the session leaves its lines."""

    def __call__(self, text: str, *, is_error: bool = False) -> None: ...


def describe(error: BaseException) -> str:
    """One line of an exception for people."""
    text = " ".join(str(error).split())
    if isinstance(error, InputError):
        return text
    return f"{type(error).__name__}: {text}"[:300]

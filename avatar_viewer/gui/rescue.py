"""Interrupted takes, offered when the window opens: recover, decide later, or delete. Nothing is deleted by one click."""

from __future__ import annotations

from ..live.recovery import Remains, TakeRescue
from . import gate, theme

_SHOWN = 8  # the rest is offered next time


class RescueDialog:
    def __init__(self, look: theme.Look, rescue: TakeRescue) -> None:
        self._look, self._rescue = look, rescue
        self._doubted: Remains | None = None  # about to be deleted, if the artist says so again
        with gate.window("Interrupted takes", modal=True, show=False, width=660, no_resize=False, pos=(140, 120)) as self._window:
            gate.text("Recording was interrupted here. What was recorded is still there:", wrap=630)
            with gate.column() as self._rows:
                pass
            gate.text("Recovering makes an ordinary mp4, and a take file from which it can be rendered again.", wrap=630, color=theme.DIM)
            with gate.row():
                self._recover_all = gate.button("Recover all", self._recover_everything, width=110)
                gate.button("Later", self.close, width=90)

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"recover_all": self._recover_all}

    def update(self) -> None:
        if self._rescue.update():
            self._fill()
            gate.set_shown(self._window, True)

    def close(self) -> None:
        self._doubted = None
        gate.set_shown(self._window, False)

    def _fill(self) -> None:
        gate.clear(self._rows)
        with gate.inside(self._rows):
            for remains in self._rescue.found[:_SHOWN]:
                with gate.row():
                    gate.button("Recover", lambda r=remains: self._settle(r, self._rescue.recover))
                    label = "Really delete" if remains is self._doubted else "Delete"
                    gate.button(label, lambda r=remains: self._doubt(r))
                    gate.bind_font(self._look.strong, gate.text(remains.name))
                    gate.text(describe_remains(remains), color=theme.DIM)
        if not self._rescue.found:
            self.close()

    def _settle(self, remains: Remains, how) -> None:
        how(remains)
        self._doubted = None
        self._fill()

    def _doubt(self, remains: Remains) -> None:
        if remains is self._doubted:
            self._settle(remains, self._rescue.discard)
        else:
            self._doubted = remains
            self._fill()

    def _recover_everything(self) -> None:
        for remains in self._rescue.found:
            self._rescue.recover(remains)
        self._fill()


def describe_remains(remains: Remains) -> str:
    """What there is of a take: 12.3 s of picture, 12.6 s of sound and events, 4.1 MB."""
    picture = f"{remains.video_seconds:.1f} s of picture" if remains.video_seconds else "no picture that plays"
    sound = f"{remains.heard_seconds:.1f} s of sound and events" if remains.heard_seconds else "no sound of its own"
    return f"{picture}, {sound}, {remains.num_bytes / 1e6:.1f} MB"

"""Sound out, by name, through everything that happens to devices; the session's clock while a file plays.

Without a working device time goes on by the wall clock and the output is silent. It comes back when a device does: at
once when one appears or is chosen, and after growing waits where one that worked was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .audio_io import Player
from .clock import Clock, WallClock
from .device_list import SoundDevices
from .messages import Say
from .spool import SpoolFormat

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 20.0


class Output:
    """A `Clock` that is heard, if anything can be heard. Belongs to the main thread; nothing here waits."""

    def __init__(
        self,
        *,
        say: Say,
        defer: Callable[[Callable[[], None]], None],  # has something done that may take a moment
        device: str | None = None,  # part of a name; None: the system's choice
        is_wanted: bool = True,
        clock: Clock | None = None,  # tells the time instead: tests give a stepped one
        open_player: Callable[[str | None], Player] = Player,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._defer, self._open_player, self._monotonic = say, defer, open_player, monotonic
        self.device = device
        self.silent_because = "" if is_wanted else "sound output is switched off"
        self._is_wanted = is_wanted and clock is None
        self._silent_clock: Clock = clock or WallClock(monotonic)
        self._spool: SpoolFormat | None = None
        self._is_complete = False
        self._rate = 1.0
        self._player: Player | None = None
        self._candidate: Player | None = None  # being opened while all is silent
        self._route = ""  # the device that really plays, where that is known
        self._retry_at: float | None = None
        self._wait_seconds = _FIRST_WAIT_SECONDS
        if self._is_wanted:
            self._player = open_player(device)

    # ---- the clock -------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """Which tells the time at this moment: the device's samples, or the wall."""
        return self._player or self._silent_clock

    @property
    def is_playing(self) -> bool:
        return self.clock.is_playing

    def now(self) -> float:
        return self.clock.now()

    def play(self) -> None:
        self.clock.play()

    def pause(self) -> None:
        self.clock.pause()

    def seek(self, seconds: float) -> None:
        self.clock.seek(seconds)

    def set_rate(self, rate: float) -> None:
        self._rate = rate
        self.clock.set_rate(rate)

    def has_ended(self, seconds: float) -> bool:
        """A sound that is this long has been heard to its end."""
        return self._player.has_ended if self._player else self._is_complete and self._silent_clock.now() >= seconds

    # ---- what plays ------------------------------------------------------------------------------------------------

    def load(self, spool: SpoolFormat) -> None:
        """This is the sound from now on, from its start."""
        self._spool, self._is_complete = spool, False
        if self._player is not None:
            self._player.load(spool)
        self.seek(0.0)

    def complete(self) -> None:
        """The spool has all its sound: its end is the end."""
        self._is_complete = True
        if self._player is not None:
            self._player.complete()

    # ---- devices ---------------------------------------------------------------------------------------------------

    @property
    def device_name(self) -> str:
        """The device that is heard; empty while none is, or none is known."""
        return self._route or (self._player.device_name if self._player else "")

    @property
    def underflows(self) -> int:
        """Gaps in the sound that the device has told of."""
        return self._player.underflows if self._player else 0

    def choose(self, device: str | None) -> None:
        """Play through this device from now on; the sound goes on where it is."""
        if not self._is_wanted:
            return
        self.device = device
        if self._player is not None:
            self._be_silent("changing the device")
        self._try_again()

    def poll(self, found: SoundDevices, *, is_new: bool) -> None:
        """Once a frame; `found` is what the device watch knows."""
        if not self._is_wanted:
            return
        if self._player is not None:
            self._player.poll()
            if self._player.failure is not None:
                reason, was_ready = self._player.failure, self._player.is_ready
                self._be_silent(reason)
                self._say(f"No sound output ({reason}): playing silently; it comes back when a device does", is_error=was_ready)
                self._wait_seconds = _FIRST_WAIT_SECONDS
                self._retry_at = self._monotonic() + self._wait_seconds if was_ready else None
                return
            self._follow_route(found)
            return
        if is_new and found.outputs and self._candidate is None:
            self._try_again()
        if self._candidate is not None:
            self._update_candidate(self._candidate)
        elif self._retry_at is not None and self._monotonic() >= self._retry_at:
            self._try_again()

    def _follow_route(self, found: SoundDevices) -> None:
        player = self._player
        route = found.playing.get(player.process_id, "") if player is not None else ""
        if route and route != self._route:
            if self._route:
                self._say(f"Sound now comes from {route} instead of {self._route}")
            self._route = route

    def _be_silent(self, reason: str) -> None:
        player, self._player = self._player, None
        assert player is not None
        position, was_playing = player.now(), player.is_playing
        self._defer(player.close)
        self.silent_because, self._route = reason, ""
        self._silent_clock.set_rate(self._rate)
        self._silent_clock.seek(position)
        if was_playing:
            self._silent_clock.play()

    def _try_again(self) -> None:
        if self._candidate is not None:
            self._defer(self._candidate.close)
        self._retry_at = None
        self._candidate = self._open_player(self.device)

    def _update_candidate(self, candidate: Player) -> None:
        candidate.poll()
        if candidate.failure is not None:
            self._candidate = None
            self._defer(candidate.close)
            if candidate.failure != self.silent_because:
                self.silent_because = candidate.failure
                self._say(f"No sound output ({candidate.failure}): playing silently")
            self._wait_seconds = min(2.0 * self._wait_seconds, _LONGEST_WAIT_SECONDS)
            self._retry_at = self._monotonic() + self._wait_seconds
        elif candidate.is_ready:
            self._candidate, self.silent_because = None, ""
            self._wait_seconds = _FIRST_WAIT_SECONDS
            clock = self._silent_clock
            position, is_playing = clock.now(), clock.is_playing
            clock.pause()
            self._player = candidate
            candidate.set_rate(self._rate)
            if self._spool is not None:
                candidate.load(self._spool)
                if self._is_complete:
                    candidate.complete()
            candidate.seek(position)
            if is_playing:
                candidate.play()
            self._say(f"Sound comes from {candidate.device_name}")

    def quit(self) -> None:
        """`close` is about to come."""
        for player in (self._player, self._candidate):
            if player is not None:
                player.quit()

    def close(self) -> None:
        for player in (self._player, self._candidate):
            if player is not None:
                self._defer(player.close)
        self._player = self._candidate = None

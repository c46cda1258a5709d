"""Where sound goes and comes from: devices by name, the microphone's gain and gate, and how far the picture is behind the voice."""

from __future__ import annotations

from dataclasses import replace

from ..live.delay import DELAY_SETTINGS, find_delay
from ..live.session import Session
from ..live.voice_chain import GATE_OFF_DB, MAX_GAIN_DB, MIN_GAIN_DB
from . import gate, theme

_SYSTEM = "the system's choice"
_HIGHEST_GATE_DB = -10.0


class SoundPanel:
    def __init__(self, session: Session, width: int) -> None:
        self._session = session
        self._listed: tuple = ()
        with gate.section("Sound", is_open=False):
            with gate.row():
                self._outputs = gate.choice((_SYSTEM,), _SYSTEM, self._choose_output, width=width - 150)
                gate.text("speaker")
                self._refresh = gate.button("Refresh", session.playback.refresh_devices)
                gate.explain(self._refresh, "Look again which devices there are; what plays goes on")
            with gate.row():
                self._inputs = gate.choice((_SYSTEM,), _SYSTEM, self._choose_input, width=width - 150)
                gate.text("microphone")
            with gate.row():
                voice = session.playback.voice
                self._gain = gate.slider("gain", MIN_GAIN_DB, MAX_GAIN_DB, voice.gain_db, self._set_gain, width=110, format="%.0f dB")
                gate.explain(self._gain, "How much louder the microphone is made")
                self._gate = gate.slider("gate", GATE_OFF_DB, _HIGHEST_GATE_DB, voice.gate_db, self._set_gate, width=110, format="%.0f dB")
                gate.explain(self._gate, "Whatever stays below this level is silence to the head and in a take; all the way left is off")
            with gate.row():
                self._monitor = gate.checkbox("Hear myself", session.playback.is_monitoring, session.playback.set_monitoring)
                gate.explain(self._monitor, "Your voice in step with the picture, so late; use headphones, or the microphone hears it again")
                names = [setting.name for setting in DELAY_SETTINGS]
                self._delay = gate.choice(names, session.delay.name, lambda name: session.set_delay(find_delay(name)), width=100)
                gate.explain(self._delay, "How far the picture may be behind your voice: less is quicker, and more easily late on a busy machine")
                gate.text("delay")
            self._state = gate.text("", wrap=width, color=theme.DIM)

    @property
    def tags(self) -> dict[str, gate.Tag]:
        """Items that a test points at."""
        return {"refresh": self._refresh}

    def update(self) -> None:
        playback = self._session.playback
        found, output = playback.devices, playback.output
        listed = (found.inputs, found.outputs, self._session.microphone_device, output.device)
        if listed != self._listed:
            self._listed = listed
            self._list(self._outputs, found.outputs, output.device)
            self._list(self._inputs, found.inputs, self._session.microphone_device)
        gate.set_text(self._state, self._state_text(), 400)

    def _state_text(self) -> str:
        session, playback = self._session, self._session.playback
        lines = []
        if playback.is_asking_for_devices:
            lines.append("looking for devices...")
        elif playback.devices.reason:
            lines.append(playback.devices.reason)
        if session.silent_because:
            lines.append(f"silent: {session.silent_because}")
        elif playback.output.device_name:
            lines.append(f"playing through {playback.output.device_name}")
        microphone, parts = session.microphone, session.delay_parts
        if microphone is not None:
            lost = f", {microphone.lost_seconds:.1f} s lost" if microphone.lost_seconds else ""
            lost += f", {microphone.overflows} overflows" if microphone.overflows else ""
            lines.append(f"listening to {microphone.route or microphone.name or 'a microphone'}{lost}" + (f": {microphone.state}" if microphone.state else ""))
        if parts is not None:
            lines.append(f"voice to picture: {parts}")
        return "\n".join(lines)

    @staticmethod
    def _list(tag: gate.Tag, names: tuple[str, ...], chosen: str | None) -> None:
        """A device that was chosen and is away stays in the list: it is waited for."""
        away = (chosen,) if chosen and chosen not in names else ()
        gate.set_choices(tag, (_SYSTEM, *names, *away), chosen or _SYSTEM)

    def _choose_output(self, name: str) -> None:
        self._session.playback.output.choose(None if name == _SYSTEM else name)

    def _choose_input(self, name: str) -> None:
        self._session.choose_microphone(None if name == _SYSTEM else name)

    def _set_gain(self, gain_db: float) -> None:
        playback = self._session.playback
        playback.set_voice(replace(playback.voice, gain_db=gain_db))

    def _set_gate(self, gate_db: float) -> None:
        playback = self._session.playback
        playback.set_voice(replace(playback.voice, gate_db=gate_db))

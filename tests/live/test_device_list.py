"""Asking for sound devices never raises and never hangs."""

from avatar_viewer.live.device_list import list_devices


def test_a_machine_without_a_sound_server_gets_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/nowhere")
    monkeypatch.setenv("ALSA_CONFIG_PATH", "/dev/null")
    devices, reason = list_devices()
    assert devices or reason

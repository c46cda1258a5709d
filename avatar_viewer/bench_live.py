"""`avatar-viewer bench live`: the real window, used from outside as a person uses it, and where the cores' time goes.

It plays the demo speech with sliders and prompts in use, records, rests, and measures from the mouse or the Return key to
the first changed pixel. Needs an X screen (xvfb-run will do); what its trace says is averaged over each phase.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bench_hands import Hands
from .errors import InputError

TITLE = "Avatar viewer"
PHASE_SECONDS = 10.0
ROUNDS = 20  # of each latency
_START_SECONDS = 180.0
_SETTLE_SECONDS = 2.0
_ANSWER_SECONDS = 2.0  # an answer that takes longer counts as none
_LOOK_SIDE = 160  # pixels of the face that are looked at
_PROMPTS = ("angry", "happy")
_SPEECH = Path(__file__).resolve().parent.parent / "assets" / "demo_speech.flac"
_KEY_SPACE, _KEY_R, _KEY_L = 0x20, ord("r"), ord("l")


def bench_live(avatar_folder: str | Path | None, quiet: bool = False) -> dict:
    """Phases and latencies, as a dictionary; prints a table where it is not `quiet`."""
    from .gui.screen import why_no_screen

    reason = why_no_screen()
    if reason:
        raise InputError(f"bench live needs an X screen ({reason}); run it under xvfb-run")
    folder = Path(tempfile.mkdtemp(prefix="avatar-viewer-bench-"))
    avatar = Path(avatar_folder) if avatar_folder else _SPEECH.parent.parent / "checkpoints" / "demo"
    window = subprocess.Popen([sys.executable, "-m", __name__, str(avatar), str(folder)])
    say = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    hands = None
    try:
        trace = _Trace(folder / "trace.jsonl", window)
        trace.wait(lambda state: state["avatar"] and not state["loading"], _START_SECONDS)
        hands = Hands(TITLE)
        return _measure(hands, trace, say)
    finally:
        if hands is not None:
            hands.close()
        window.terminate()
        try:
            window.wait(30.0)
        except subprocess.TimeoutExpired:
            window.kill()


def _open_window(avatar: Path, folder: Path) -> None:
    import torch

    from .gui.app import App, ViewerOptions

    if (os.cpu_count() or 1) <= 4:
        torch.set_num_threads(1)
    App(ViewerOptions(avatar=avatar, audio=_SPEECH, takes=folder / "takes", trace=folder / "trace.jsonl")).run()


class _Trace:
    """What the window writes of itself, and what the system knows of its processes."""

    def __init__(self, path: Path, window: subprocess.Popen) -> None:
        self._path, self._window = path, window

    def lines(self) -> list[dict[str, Any]]:
        text = self._path.read_text() if self._path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    @property
    def state(self) -> dict[str, Any]:
        return self.lines()[-1]

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._window.poll() is not None:
                raise InputError(f"the window has ended (code {self._window.returncode})")
            lines = self.lines()
            if lines and condition(lines[-1]):
                return lines[-1]
            time.sleep(0.1)
        raise InputError(f"the window did not come so far within {seconds:.0f} s; its last state: {self.lines()[-1:]}")

    def processor_seconds(self) -> tuple[float, float]:
        """Of the window's process, and of its children, that live now."""
        return _processor_seconds(self._window.pid), sum(_processor_seconds(pid) for pid in _children(self._window.pid))


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []


# ---- what is measured ----------------------------------------------------------------------------------------------


def _measure(hands: Hands, trace: _Trace, say: Callable[[str], None]) -> dict:
    stage = trace.state["places"]["stage"]
    hands.move(stage)
    if not trace.state["playing"]:
        hands.key(_KEY_SPACE)
    hands.key(_KEY_L)  # the speech is shorter than what is measured
    trace.wait(lambda state: state["playing"] and state["now"] > 0.5)
    say(f"  {'phase':34} shown/s  pictures/s  p95 ms   % of one core: window  others   of it: pose  raster  show  speech")
    phases = {}
    for name, begin, act, end in (
        ("playing", None, None, None),
        ("playing, sliders and prompts in use", None, _use, None),
        ("the same, recording", _KEY_R, _use, _KEY_R),
    ):
        if begin is not None:
            hands.key(begin)
            trace.wait(lambda state: state["recording"])
        phases[name] = _phase(hands, trace, act)
        _say_phase(say, name, phases[name])
        if end is not None:
            hands.key(end)
            trace.wait(lambda state: state["last_take"])
    hands.key(_KEY_SPACE)
    trace.wait(lambda state: not state["playing"])
    latencies = {"slider to pixel": _slider_latency(hands, trace), "prompt to pixel": _prompt_latency(hands, trace)}
    for name, answers in latencies.items():
        say(f"  {name}: {answers['median_ms']} ms, p95 {answers['p95_ms']} ms, of {answers['answers']} ({answers['unanswered']} unanswered)")
    hands.move((stage[0], stage[1] - 40))
    time.sleep(_SETTLE_SECONDS + 2.0)
    phases["idle"] = _phase(hands, trace, None)
    _say_phase(say, "idle", phases["idle"])
    return {"cores": os.cpu_count(), "phases": phases, "latencies": latencies}


def _phase(hands: Hands, trace: _Trace, act: Callable[[Hands, _Trace, int], None] | None) -> dict:
    """What happens in some seconds, `act` being done once a second."""
    time.sleep(_SETTLE_SECONDS)
    before, began = trace.state, time.monotonic()
    own, others = trace.processor_seconds()
    count = len(trace.lines())
    turn = 0
    while time.monotonic() - began < PHASE_SECONDS:
        if act is not None:
            act(hands, trace, turn)
            turn += 1
        time.sleep(0.9)
    seconds = time.monotonic() - began
    own_after, others_after = trace.processor_seconds()
    lines = trace.lines()[count:]
    after = lines[-1]
    span = after["seconds"] - before["seconds"]
    pictures = (after["pictures"] - before["pictures"]) / span
    stages = {name: statistics.mean(line["stages_ms"].get(name, 0.0) for line in lines) for name in ("pose", "raster", "show", "window")}
    return {
        "frames_a_second": round(statistics.median(line["fps"] for line in lines), 1), "pictures_a_second": round(pictures, 1),
        "p95_ms": round(statistics.median(line["p95_ms"] for line in lines), 1),
        "window_percent": round(100 * (own_after - own) / seconds, 1), "others_percent": round(100 * (others_after - others) / seconds, 1),
        "stage_percent": {name: round(ms * pictures / 10, 1) for name, ms in stages.items()},
        "speech_percent": round(statistics.mean(line["hop_ms"] for line in lines) * after["hops_a_second"] / 10, 1) if pictures > 1 else 0.0,
        "shed": sorted({line["shed"] for line in lines} - {""}), "late_frames": after["late"] - before["late"],
        "underflows": after["underflows"] - before["underflows"], "dropped": after["dropped"],
    }  # fmt: skip


def _say_phase(say: Callable[[str], None], name: str, phase: dict) -> None:
    stages = phase["stage_percent"]
    say(
        f"  {name:34} {phase['frames_a_second']:7.1f} {phase['pictures_a_second']:11.1f} {phase['p95_ms']:7.1f} {phase['window_percent']:23.1f}"
        f" {phase['others_percent']:7.1f} {stages['pose']:14.1f} {stages['raster']:7.1f} {stages['show']:5.1f} {phase['speech_percent']:7.1f}"
        + (f"   shed: {', '.join(phase['shed'])}" if phase["shed"] else "")
        + (f"   late {phase['late_frames']}" if phase["late_frames"] else "")
        + (f"   sound gaps {phase['underflows']}" if phase["underflows"] else "")
    )


def _use(hands: Hands, trace: _Trace, turn: int) -> None:
    """One thing that an artist does: a slider pulled, or now and then a prompt."""
    places = trace.state["places"]
    if turn % 4 == 3:
        hands.click(places["prompt"])
        hands.select_all()
        hands.type(_PROMPTS[turn // 4 % 2])
        hands.enter()
        hands.leave()
    else:
        x, y = places["AU01"]
        hands.move((x, y))
        hands.press(True)
        for step in range(8):
            hands.move((x + (step - 4) * 5, y))
            time.sleep(0.03)
        hands.press(False)
    hands.move(places["stage"])


def _slider_latency(hands: Hands, trace: _Trace) -> dict:
    """From moving the mouse on a held slider to the face looking different; the sound stands still, or it would move anyway."""
    places = trace.state["places"]
    (x, y), face = places["AU04"], places["stage"]
    hands.move((x, y))
    time.sleep(0.3)
    hands.press(True)
    time.sleep(_SETTLE_SECONDS)
    waits = []
    for turn in range(ROUNDS):
        before = hands.look(face, _LOOK_SIDE)
        began = time.monotonic()
        hands.move((x + (40 if turn % 2 == 0 else -40), y))
        waits.append((began, hands.wait_for_change(before, face, _LOOK_SIDE, _ANSWER_SECONDS)))
        time.sleep(1.0)
    hands.press(False)
    return _latency(waits)


def _prompt_latency(hands: Hands, trace: _Trace) -> dict:
    """From Return in the prompt box to the face looking different, for prompts that were read before."""
    places = trace.state["places"]
    face = places["stage"]
    waits = []
    for turn in range(ROUNDS + 2):
        hands.click(places["prompt"])
        trace.wait(lambda state: state["typing"])
        hands.select_all()
        hands.type(_PROMPTS[turn % 2])
        time.sleep(0.5)
        before = hands.look(face, _LOOK_SIDE)
        began = time.monotonic()
        hands.enter()
        waits.append((began, hands.wait_for_change(before, face, _LOOK_SIDE, _ANSWER_SECONDS)))
        hands.leave()
        time.sleep(1.0)
    return _latency(waits[2:])  # the first of each prompt are read for the first time


def _latency(waits: list[tuple[float, float | None]]) -> dict:
    answers = sorted(1000 * (end - began) for began, end in waits if end is not None)
    if not answers:
        return {"median_ms": None, "p95_ms": None, "answers": 0, "unanswered": len(waits)}
    return {
        "median_ms": round(statistics.median(answers)), "p95_ms": round(answers[min(len(answers) - 1, int(0.95 * len(answers)))]),
        "answers": len(answers), "unanswered": len(waits) - len(answers),
    }  # fmt: skip


if __name__ == "__main__":
    _open_window(Path(sys.argv[1]), Path(sys.argv[2]))

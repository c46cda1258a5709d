"""The window in use for a while: sound that loops, sliders, prompts, scrubbing, takes; nothing grows, nothing is left behind.

AVATAR_VIEWER_SOAK_SECONDS=1800 makes it half an hour with the demo avatar at 512 x 512; run with `-s` to see the figures.
"""

import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.window, pytest.mark.sound]
ROOT = Path(__file__).parents[2]
SOAK_SECONDS = float(os.environ.get("AVATAR_VIEWER_SOAK_SECONDS", "12"))
IS_LONG = SOAK_SECONDS >= 120
WARM_ROUNDS = 3 if IS_LONG else 1  # what is loaded at the first use is no growth
MOST_GROWTH_BYTES = 30 << 20


class Process:
    """What the system knows of a process and of its children."""

    def __init__(self, pid):
        self.pid = pid

    def memory_bytes(self):
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def handles(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self):
        found = (int(child) for task in os.listdir(f"/proc/{self.pid}/task") for child in Path(f"/proc/{self.pid}/task/{task}/children").read_text().split())
        return [Process(pid) for pid in found]

    def look(self):
        children = self.children()
        return self.memory_bytes(), sum(child.memory_bytes() for child in children), self.threads(), self.handles(), len(children)


def use(window, turn):
    """Some twenty seconds as an artist spends them."""
    x, y = window.place("AU12")
    window.drag((x, y), (x + (30 if turn % 2 else -30), y))
    window.click(*window.place("prompt"))
    window.wait(lambda state: state["typing"], "the cursor in the prompt box")
    window.key("ctrl+a")
    window.xdotool("type", "--delay", "60", ("angry", "a shy half-smile", "surprised")[turn % 3])
    window.key("Return", "Escape")
    window.wait(lambda state: not state["typing"], "leaving the box")
    x, y = window.place("stage")
    window.drag((x, y), (x + (60 if turn % 2 else -60), y + 10))
    window.key("Right", "Left")
    if turn % 3 == 0 or not IS_LONG:
        before = window.state["last_take"]
        window.key("r")
        window.wait(lambda state: state["recording"] and state["recorded"] >= 50, "recording")
        window.key("r")
        take = window.wait(lambda state: not state["recording"] and state["last_take"] not in (None, before), "the take")["last_take"]
        for suffix in (".mp4", ".take"):
            (window.folder / take).with_suffix(suffix).unlink()
    time.sleep(8.0 if IS_LONG else 0.0)


def test_nothing_grows_while_the_window_is_in_use(open_window, voice, sound_server):
    arguments = {"avatar": ROOT / "checkpoints" / "demo"} if IS_LONG else {}
    size = ("--size", "512x512") if IS_LONG else ()
    sound = ROOT / "assets" / "demo_speech.flac" if IS_LONG else voice
    window = open_window("--audio", sound, *size, environment=sound_server.environment, **arguments)
    window.wait(lambda state: state["playing"] and not state["loading"], "playing")
    window.move(*window.place("stage"))
    window.key("l")
    for turn in range(WARM_ROUNDS):
        use(window, turn)
    process = Process(window.process.pid)
    first, began, looks = process.look(), time.monotonic(), []
    since = window.state["seconds"]
    turn = WARM_ROUNDS
    while time.monotonic() - began < SOAK_SECONDS:
        use(window, turn)
        looks.append(process.look())
        turn += 1
    deadline = time.monotonic() + 30.0  # of a take's end, and of what is closed off the frame loop
    while (last := process.look())[2:] > first[2:] and time.monotonic() < deadline:
        time.sleep(0.5)
    lines = [line for line in window.lines() if line["seconds"] > since]
    frames = np.array([ms for line in lines for ms in line["frames_ms"]])
    growth, others = last[0] - first[0], last[1] - first[1]
    print(
        f"\n{time.monotonic() - began:.0f} s of use, {turn - WARM_ROUNDS} rounds: memory {growth / 2**20:+.1f} MiB of {last[0] / 2**20:.0f}, its processes {others / 2**20:+.1f}; "
        f"threads {last[2] - first[2]:+d}, handles {last[3] - first[3]:+d}, processes {last[4] - first[4]:+d}; {len(frames)} frames, median {np.median(frames):.1f} ms, "
        f"p99 {np.percentile(frames, 99):.1f}, most {frames.max():.0f}; late {lines[-1]['late'] - lines[0]['late']}, sound gaps {lines[-1]['underflows'] - lines[0]['underflows']}; "
        f"shed in {100 * statistics.mean(bool(line['shed']) for line in lines):.0f} % of the lines"
    )
    if IS_LONG:
        quarter = max(1, len(looks) // 4)
        print("memory by quarters, MiB:", [round(statistics.median(look[0] for look in looks[start : start + quarter]) / 2**20, 1) for start in range(0, len(looks), quarter)])
    assert growth < MOST_GROWTH_BYTES and others < MOST_GROWTH_BYTES
    assert last[2] <= first[2] and last[3] <= first[3] and last[4] <= first[4], "threads, handles and processes"
    assert window.close() == 0, window.log()

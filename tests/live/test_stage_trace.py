"""The trace of ten seconds: every thread's spans and every queue's counters, as Chrome reads them."""

import json
import threading
import time
from dataclasses import replace

import pytest

from avatar_viewer.errors import InputError
from avatar_viewer.live.clock import SteppedClock
from avatar_viewer.live.session import Session
from avatar_viewer.live.stage_trace import StageTrace, write_trace
from avatar_viewer.live.trace import StageTimes


def test_nothing_is_kept_before_it_begins_and_after_it_was_taken():
    trace = StageTrace()
    trace.note("early", 0.0, 1.0)
    trace.count(queue=3)
    assert trace.take_finished() is None
    trace.begin(seconds=0.0)
    assert trace.take_finished() == []
    trace.note("late", 0.0, 1.0)
    assert trace.take_finished() is None and not trace.is_running


def test_spans_of_two_threads_and_counters_are_told_apart():
    trace = StageTrace()
    stages = StageTimes(trace)
    trace.begin(seconds=0.05)
    stages.start()
    time.sleep(0.01)
    stages.lap("raster")

    def work() -> None:
        with pytest.raises(ZeroDivisionError), trace.span("hop"):
            raise ZeroDivisionError

    thread = threading.Thread(target=work, name="speech")
    thread.start()
    thread.join()
    trace.count(queue=2)
    trace.begin(seconds=100.0)  # goes on to its own end
    time.sleep(0.05)
    events = trace.take_finished()
    spans = {event["name"]: event for event in events if event["ph"] == "X"}
    assert spans["raster"]["dur"] >= 10_000 and spans["hop"]["ts"] >= spans["raster"]["ts"] + spans["raster"]["dur"] - 1
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names[spans["hop"]["tid"]] == "speech" != names[spans["raster"]["tid"]]
    assert [event["args"] for event in events if event["ph"] == "C"] == [{"value": 2}]
    assert len({event["pid"] for event in events}) == 1


def test_a_file_of_it_never_replaces_another(tmp_path):
    paths = {write_trace([{"ph": "C", "name": "queue", "ts": 1.0, "args": {"value": 1}}], tmp_path / "takes") for _ in range(3)}
    assert len(paths) == 3
    assert json.loads(paths.pop().read_text())["traceEvents"][0]["name"] == "queue"
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="trace cannot be written"):
        write_trace([], blocked)


def test_a_session_writes_its_own(tmp_path, tiny_avatar):
    session = Session(clock=SteppedClock(), has_sound_output=False)
    try:
        session.use_avatar(tiny_avatar)
        session.begin_trace(tmp_path)
        session.load_avatar(lambda show: replace(tiny_avatar))
        until = time.monotonic() + 20
        while session.is_loading and time.monotonic() < until:
            session.update()
            time.sleep(0.01)
        session.trace._until = 0.0
        session.update()
        while not any("Trace: " in message.text for message in session.messages) and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        session.close()
    (path,) = tmp_path.glob("trace_*.json")
    assert str(path) in next(message.text for message in session.messages if "Trace: " in message.text)
    names = {event["name"] for event in json.loads(path.read_text())["traceEvents"]}
    assert {"motion_ahead_ms", "errands_waiting", "pictures_to_encode", "late_frames"} <= names
    assert any("load_avatar" in name for name in names)

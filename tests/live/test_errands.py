"""Work off the frame loop: what has to be done is done, also when the session closes in the middle of something else."""

import threading

from avatar_viewer.live.errands import Errands
from avatar_viewer.live.handoff import FirstFailure
from avatar_viewer.live.stage_trace import StageTrace


def start(errands):
    thread = threading.Thread(target=errands.run, daemon=True)
    thread.start()
    return thread


def test_errands_are_done_in_turn_and_one_that_fails_stops_no_other():
    failure, done, is_done = FirstFailure(), [], threading.Event()
    errands = Errands(failure, StageTrace())
    errands.put(lambda: 1 / 0)
    errands.put_droppable(lambda: done.append("read"))
    errands.put(lambda: done.append("closed"))
    errands.put(is_done.set)
    thread = start(errands)
    assert is_done.wait(10)
    errands.close()
    thread.join(10)
    assert done == ["read", "closed"] and not thread.is_alive()
    assert isinstance(failure.take().error, ZeroDivisionError)


def test_closing_does_what_is_needed_drops_the_rest_and_waits_for_nothing_long():
    done, has_begun, may_end = [], threading.Event(), threading.Event()
    errands = Errands(FirstFailure(), StageTrace())

    def load():
        has_begun.set()
        may_end.wait(30)

    errands.put_droppable(load)
    errands.put_droppable(lambda: done.append("prompt"))
    errands.put(lambda: done.append("recovered"))
    thread = start(errands)
    has_begun.wait(10)
    assert not errands.is_needed
    errands.close()
    assert done == ["recovered"]
    errands.put(lambda: done.append("device closed"))
    errands.put_droppable(lambda: done.append("another prompt"))
    assert done == ["recovered", "device closed"], "afterwards it is done at once"
    may_end.set()
    thread.join(10)
    assert not thread.is_alive()

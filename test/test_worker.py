"""The worker's thread: newest frames only, counted."""

import threading
import time

import pytest

from mspn_ros.node.worker import STAGES, Milestones, NewestFrameWorker


def test_a_bug_in_processing_costs_one_frame_and_not_the_thread():
    """The thread once died with the first exception; every later frame then waited for ever."""
    seen, bugs = [], []

    def process(taken):
        [(_, message)] = taken
        seen.append(message)
        if message == 1:
            raise ZeroDivisionError("no")
        return [Milestones(time.monotonic(), time.monotonic())]

    worker = NewestFrameWorker(process, bugs.append)
    worker.start()
    for message in (1, 2):
        worker.submit(message)
        deadline = time.monotonic() + 10
        while message not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
    worker.stop()
    [counts] = worker.counts()
    assert seen == [1, 2]
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    assert (counts.answered, counts.rejected, counts.in_progress) == (
        1,
        {"bug.ZeroDivisionError": 1},
        0,
    )


def test_stages_are_those_of_the_frames_answered_since_the_worker_was_started():
    """Each frame's own: a stage that took another frame's time would not add up to its wait."""
    taken, go = threading.Semaphore(0), threading.Semaphore(0)

    def process(frames):
        taken.release()
        go.acquire()
        if frames == [(0, "broken")]:
            return ["corrupt"]
        time.sleep(0.01)
        decoded_s = time.monotonic()
        time.sleep(0.03)
        return [Milestones(decoded_s, time.monotonic())]

    worker = NewestFrameWorker(process, lambda error: None)
    assert worker.counts()[0].durations_ms() == {}
    worker.start()
    for message in ("first", "broken", "last"):
        worker.submit(message)
        taken.acquire()
        # Another thread would see the frame in progress, and no stage of it yet.
        assert worker.counts()[0].in_progress == 1
        go.release()
        while worker.counts()[0].in_progress:
            time.sleep(0.001)
    worker.stop()
    [counts] = worker.counts()
    assert (counts.answered, counts.rejected) == (2, {"corrupt": 1})
    took = counts.durations_ms()
    assert list(took) == ["latency", *STAGES, "ros_adds"]
    assert all(0 <= p50 <= p95 <= p99 for p50, p95, p99 in took.values())
    p50 = {stage: percentiles[0] for stage, percentiles in took.items()}
    # p50 of two frames is their mean, and means add up.
    assert sum(p50[stage] for stage in STAGES) == pytest.approx(p50["latency"])
    assert p50["decode"] >= 10
    assert p50["localize"] >= 30
    assert p50["ros_adds"] == pytest.approx(p50["latency"] - p50["localize"])
    worker.start()
    [counts] = worker.counts()
    assert (counts.answered, counts.durations_ms()) == (2, {})
    worker.stop()


def test_what_waits_of_all_cameras_is_taken_together_and_counted_by_camera():
    turns, go = [], threading.Semaphore(0)
    taken = threading.Semaphore(0)

    def process(frames):
        turns.append(list(frames))
        taken.release()
        go.acquire()
        now_s = time.monotonic()
        good = Milestones(now_s, now_s)
        return ["corrupt" if message == "bad" else good for _, message in frames]

    worker = NewestFrameWorker(process, lambda error: None, cameras=3)
    worker.start()
    worker.submit("first", camera=1)
    taken.acquire()
    for message, camera in (("old", 0), ("new", 0), ("bad", 2), ("next", 1)):
        worker.submit(message, camera=camera)
    go.release()
    taken.acquire()
    go.release()
    worker.stop()
    assert turns == [[(1, "first")], [(0, "new"), (1, "next"), (2, "bad")]]
    front, left, right = worker.counts()
    assert (front.received, front.answered, front.overtaken) == (2, 1, 1)
    assert (left.received, left.answered, left.overtaken) == (2, 2, 0)
    assert (right.received, right.answered, right.rejected) == (1, 0, {"corrupt": 1})
    total = front + left + right
    assert (total.received, total.answered, total.overtaken) == (5, 3, 1)
    assert total.rejected == {"corrupt": 1}
    assert len(total.times_s) == 3

"""The window of a transfer: it grows while nothing queues, and gives way when something does."""

import pytest

from chat.client.files.delaywindow import BASE_NS, RECENT, TARGET_NS, DelayWindow

MS = 1_000_000


def grown(window: DelayWindow, rtt_ns: int, rounds: int, now_ns: int = 0) -> int:
    """The window after so many round trips of this length, each of which used it fully; in steps of a chunk."""
    for _ in range(rounds):
        now_ns += rtt_ns
        for _ in range(max(1, window.size_bytes // 100)):
            window.confirmed(100, window.size_bytes, rtt_ns, now_ns)
    return window.size_bytes


def test_the_window_grows_while_nothing_queues_and_never_beyond_the_grant() -> None:
    window = DelayWindow(100, 100_000)
    assert grown(window, 100 * MS, 4) > 600
    assert grown(window, 100 * MS, 30) == 100_000
    assert repr(window) == "<DelayWindow 100000 B>"


def test_the_window_shrinks_to_a_chunk_when_a_queue_stays() -> None:
    window = DelayWindow(100, 100_000)
    full = grown(window, 100 * MS, 30)
    assert grown(window, 100 * MS + 2 * TARGET_NS, RECENT) < full
    assert grown(window, 100 * MS + 2 * TARGET_NS, 100) == 100


def test_the_window_rests_at_the_target() -> None:
    """A link of 1000 bytes per ms and 100 ms: the queue is what the window is too large by."""
    window = DelayWindow(1_000, 1_000_000)
    now_ns = 0
    for _ in range(200):
        rtt_ns = max(100 * MS, window.size_bytes * 1_000)
        now_ns += rtt_ns
        for _ in range(window.size_bytes // 1_000):
            window.confirmed(1_000, window.size_bytes, rtt_ns, now_ns)
    assert window.size_bytes / 1_000 * MS == pytest.approx(100 * MS + TARGET_NS, rel=0.05)


def test_jitter_alone_is_no_queue() -> None:
    window = DelayWindow(100, 100_000)
    for number in range(3_000):
        window.confirmed(100, window.size_bytes, (100 + number % (RECENT - 1) * 20) * MS, number * MS)
    assert window.size_bytes == 100_000


def test_a_window_that_is_not_used_does_not_grow() -> None:
    window = DelayWindow(100, 100_000)
    for _ in range(100):
        window.confirmed(50, 50, 100 * MS, 0)
    assert window.size_bytes == 200


def test_a_route_that_has_become_longer_is_the_new_measure_after_a_while() -> None:
    window = DelayWindow(100, 100_000)
    grown(window, 10 * MS, 30)
    assert grown(window, 300 * MS, 20) == 100
    for start_ns in (BASE_NS * 11 // 10, BASE_NS * 22 // 10):
        for _ in range(RECENT):
            window.confirmed(100, window.size_bytes, 300 * MS, start_ns)
    assert grown(window, 300 * MS, 30, BASE_NS * 22 // 10) > 400


def test_after_a_break_the_window_begins_small_and_grows_fast_to_half_of_what_it_was() -> None:
    window = DelayWindow(100, 100_000)
    grown(window, 100 * MS, 30)
    for _ in range(3):  # one break is told more than once
        window.restart()
    assert window.size_bytes == 200
    assert 50_000 <= grown(window, 300 * MS, 20) < 100_000

"""Log and Outbox: cursors, bounds, gaps, and what a partial send leaves behind."""

from chat.protocol.messages import Gap
from chat.protocol.wire import encode
from chat.server.log import MAX_BATCHES, Log
from chat.server.outbox import BATCH_BYTES, FULL_BYTES, Outbox


def make_log(lines: int, *, max_lines: int = 100, max_bytes: int = 10_000, size: int = 10) -> Log:
    log = Log("room", max_lines=max_lines, max_bytes=max_bytes)
    for number in range(1, lines + 1):
        log.append(line(number, size))
    return log


def line(number: int, size: int = 10) -> bytes:
    return f"{number:0{size - 1}d}\n".encode()


def test_numbers_begin_at_one() -> None:
    log = make_log(0)
    assert (log.first_seq, log.last_seq, log.read(0, 100)) == (1, 0, (b"", 0))
    log.append(line(1))
    assert (log.first_seq, log.last_seq, log.read(0, 100)) == (1, 1, (line(1), 1))


def test_followers_at_the_same_cursor_share_one_object() -> None:
    log = make_log(5)
    assert log.read(2, 100).data is log.read(2, 100).data
    before = log.read(2, 100)
    log.append(line(6))
    assert log.read(2, 100).data == before.data + line(6)


def test_batches_are_bounded_but_never_empty_while_there_is_a_line() -> None:
    log = make_log(5)
    assert log.read(0, 25) == (line(1) + line(2), 2)
    assert log.read(0, 1) == (line(1), 1)


def test_few_batches_are_remembered() -> None:
    log = make_log(MAX_BATCHES * 3)
    for cursor in range(MAX_BATCHES * 3):
        assert log.read(cursor, 10).cursor == cursor + 1
    assert len(log._batches) <= MAX_BATCHES


def test_bounded_by_lines() -> None:
    log = make_log(1000, max_lines=7)
    assert (log.first_seq, log.last_seq) == (994, 1000)
    assert len(log._lines) <= 2 * 7 + 1
    assert log.missed(990) == 3
    assert log.missed(993) == 0
    assert log.read(0, 20) == (line(994) + line(995), 995)


def test_bounded_by_bytes() -> None:
    log = make_log(50, max_bytes=45)
    assert (log.first_seq, log.last_seq) == (47, 50)
    log.append(b"x" * 100)
    assert (log.first_seq, log.last_seq, log.missed(50)) == (52, 51, 1)
    assert log.read(50, 10) == (b"", 51)


def test_repr() -> None:
    log = make_log(3)
    outbox = Outbox()
    assert repr(log) == "<Log room 1…3 30 B>"
    assert repr(outbox) == "<Outbox 0 B direct>"
    outbox.follow(log, 1)
    assert repr(outbox) == "<Outbox 0 B direct, room 1/3>"


def test_a_lone_batch_is_not_copied() -> None:
    log = make_log(3)
    outbox = Outbox()
    outbox.follow(log, 0)
    assert outbox.take() is log.read(0, BATCH_BYTES).data


def test_direct_lines_go_first_and_logs_follow() -> None:
    log, other = make_log(2), make_log(1)
    outbox = Outbox()
    outbox.follow(log, 1)
    outbox.follow(other, 0)
    outbox.tell(b"direct\n")
    assert outbox.pending
    data = outbox.take()
    assert data == b"direct\n" + line(2) + line(1)
    outbox.sent(len(data))
    assert not outbox.pending
    assert outbox.take() == b""
    outbox.sent(0)


def test_any_partial_send_loses_and_repeats_nothing() -> None:
    expected = b"direct\n" + b"".join(map(line, range(1, 6))) + line(1)
    for first in range(len(expected) + 1):
        for second in range(1, 12):
            outbox = Outbox()
            log, other = make_log(5), make_log(1)
            outbox.follow(log, 0)
            outbox.follow(other, 0)
            outbox.tell(b"direct\n")
            got = b""
            for size in (first, *[second] * len(expected)):
                data = outbox.take()[:size]
                outbox.sent(len(data))
                got += data
            assert got == expected, (first, second)


def test_a_line_that_was_begun_is_finished_even_if_its_log_lost_it() -> None:
    log = make_log(3, max_lines=3)
    outbox = Outbox()
    outbox.follow(log, 0)
    outbox.take()
    outbox.sent(4)
    for number in range(4, 9):
        log.append(line(number))
    assert outbox.take() == line(1)[4:] + encode(Gap("room", 4)) + line(6) + line(7) + line(8)


def test_a_gap_with_nothing_after_it() -> None:
    log = make_log(1, max_bytes=20)
    outbox = Outbox()
    outbox.follow(log, 0)
    log.append(b"x" * 100)
    assert outbox.take() == encode(Gap("room", 2))
    outbox.sent(1000)
    assert not outbox.pending


def test_finish() -> None:
    log = make_log(2)
    outbox = Outbox()
    outbox.follow(log, 1)
    outbox.finish(b"bye\n")
    log.append(line(3))
    assert outbox.take() == line(2) + b"bye\n"
    outbox.sent(1000)
    outbox.finish()
    assert not outbox.pending


def test_full_bounds_direct_lines_only() -> None:
    outbox = Outbox()
    outbox.follow(make_log(10_000, max_lines=10_000, max_bytes=1 << 20), 0)
    assert not outbox.full
    outbox.tell(b"x" * (FULL_BYTES + 1))
    assert outbox.full
    outbox.take()
    outbox.sent(2)
    assert not outbox.full

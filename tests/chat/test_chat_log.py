"""Log: numbers, bounds, and batches that are shared."""

import pytest

from chat.protocol.messages import Joined
from chat.protocol.wire import encode
from chat.server.log import MAX_BATCHES, Log


def make_log(lines: int, *, max_lines: int = 100, max_bytes: int = 10_000, size: int = 10) -> Log:
    log = Log("room", max_lines=max_lines, max_bytes=max_bytes)
    for number in range(1, lines + 1):
        log.extend([line(number, size)])
    return log


def line(number: int, size: int = 10) -> bytes:
    return f"{number:0{size - 1}d}\n".encode()


def test_numbers_begin_at_one() -> None:
    log = make_log(0)
    assert (log.first_seq, log.last_seq, log.read(0, 100)) == (1, 0, (b"", 0))
    log.extend([line(1)])
    assert (log.first_seq, log.last_seq, log.read(0, 100)) == (1, 1, (line(1), 1))


def test_followers_at_the_same_cursor_share_one_object() -> None:
    log = make_log(5)
    assert log.read(2, 100).data is log.read(2, 100).data
    before = log.read(2, 100)
    log.extend([line(6)])
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
    log.extend([b"x" * 100])
    assert (log.first_seq, log.last_seq, log.missed(50)) == (52, 51, 1)
    assert log.read(50, 10) == (b"", 51)


def test_it_numbers_its_lines() -> None:
    log = make_log(2)
    lines = [encode(Joined("room", 3, "ana")), encode(Joined("room", 4, "ben"))]
    assert log.write(lambda name, seq: [Joined(name, seq, "ana"), Joined(name, seq + 1, "ben")]) == lines
    assert log.read(2, 1_000) == (b"".join(lines), 4)


@pytest.mark.parametrize("several", [1, 2, 7, 60])
@pytest.mark.parametrize("bounds", [{"max_lines": 5}, {"max_bytes": 95}, {"max_bytes": 5}, {}])
def test_several_lines_are_as_good_as_one_after_another(several: int, bounds: dict[str, int]) -> None:
    together, alone = make_log(3, **bounds), make_log(3, **bounds)
    lines = [line(number, 10 + number % 3) for number in range(60)]
    for begin in range(0, 60, several):
        together.extend(lines[begin : begin + several])
        for each in lines[begin : begin + several]:
            alone.extend([each])
        assert (together.first_seq, together.last_seq) == (alone.first_seq, alone.last_seq)
        assert together.read(0, 10_000) == alone.read(0, 10_000)
        assert together.bytes_after(0) == alone.bytes_after(0)


def test_repr() -> None:
    assert repr(make_log(3)) == "<Log room 1…3 30 B>"

"""Delivery and Backlog: who is at the head, who is behind, and what a partial send leaves behind."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sinks import EVERYTHING, Pipe

from chat.protocol.messages import Gap, Joined, Ping, Pong
from chat.protocol.wire import encode
from chat.server.backlog import BULK_BYTES, Pieces
from chat.server.delivery import BATCH_BYTES, DUE_BYTES, Delivery
from chat.server.log import Log
from chat.server.members import FULL_BYTES


def line(number: int, log: str = "room") -> bytes:
    return encode(Joined(log, number, "ana"))


def a_file() -> Pieces:
    pieces = Pieces()
    pieces.append(b"a file\n", 1)
    return pieces


class Post:
    """A delivery with one log, and one with another."""

    def __init__(self, max_lines: int = 100, max_bytes: int = 100_000) -> None:
        self.delivery = Delivery()
        self.room, self.other = (Log(name, max_lines=max_lines, max_bytes=max_bytes) for name in ("room", "other"))
        for log in (self.room, self.other):
            self.delivery.open(log)

    def follower(self, *logs: Log, room: int = EVERYTHING) -> Pipe:
        """A connection that is at the head of these logs."""
        pipe = Pipe(self.delivery, EVERYTHING)
        for log in logs or (self.room,):
            self.delivery.follow(pipe.connection, log, log.last_seq)
        self.delivery.flush()
        assert pipe.connection.backlog is None
        pipe.room = room
        return pipe

    def say(self, count: int = 1, log: Log | None = None, *, may_wait: bool = False) -> None:
        for _ in range(count):
            self.delivery.append(log or self.room, lambda name, seq: Joined(name, seq, "ana"), may_wait=may_wait)


@pytest.fixture
def post() -> Post:
    return Post()


def test_who_is_at_the_head_is_sent_the_very_same_bytes(post: Post) -> None:
    pipes = [post.follower() for _ in range(3)]
    assert not post.delivery.dirty
    post.say(2)
    assert post.delivery.dirty
    assert post.delivery.flush() == []
    assert [pipe.read() for pipe in pipes] == [line(1) + line(2)] * 3
    assert all(pipe.sends[-1] is pipes[0].sends[-1] for pipe in pipes)
    assert all(pipe.connection.backlog is None for pipe in pipes)
    assert repr(post.delivery) == "<Delivery of 2 log(s)>"


def test_who_is_in_few_rooms_does_not_wait_for_a_crowd_in_many(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = [post.follower(post.room, post.other) for _ in range(3)]
    quiet = post.follower(post.room), post.follower(post.other)
    order: list[Pipe] = []
    send = Pipe.send
    monkeypatch.setattr(Pipe, "send", lambda pipe, data: (order.append(pipe), send(pipe, data))[1])
    for log in (post.other, post.room):
        post.say(log=log)
    post.delivery.flush()
    assert order == [quiet[1], quiet[0], *crowd]
    assert [pipe.read() for pipe in crowd] == [line(1, "other") + line(1)] * 3


def test_lines_that_may_wait_are_sent_together(post: Post) -> None:
    pipe = post.follower()
    for _ in range(3):
        post.say(may_wait=True)
        assert post.delivery.waiting
        assert not post.delivery.dirty
    post.delivery.hurry()
    post.delivery.flush()
    assert pipe.sends == [line(1) + line(2) + line(3)]
    assert not post.delivery.waiting


def test_lines_that_may_wait_go_ahead_of_one_that_may_not(post: Post) -> None:
    pipe = post.follower()
    post.say(may_wait=True)
    post.say()
    post.delivery.flush()
    assert pipe.read() == line(1) + line(2)
    assert not post.delivery.waiting


def test_who_has_been_sent_lines_that_wait_is_not_sent_them_again(post: Post) -> None:
    asking, other = post.follower(), post.follower()
    post.say(may_wait=True)
    post.delivery.tell(asking.connection, Pong())
    post.delivery.flush()
    assert (asking.read(), other.read()) == (encode(Pong()) + line(1), b"")
    post.delivery.tell(asking.connection, Pong())
    post.delivery.flush()
    assert asking.read() == encode(Pong()), "an answer does not wait"
    post.say()
    post.delivery.flush()
    assert (asking.read(), other.read()) == (line(2), line(1) + line(2))
    assert asking.connection.backlog is None, "at the head again"


def test_who_is_ahead_may_go(post: Post) -> None:
    gone, going = post.follower(), post.follower()
    post.say(may_wait=True)
    for pipe in (gone, going):
        post.delivery.tell(pipe.connection, Pong())
    post.delivery.flush()
    post.delivery.drop(gone.connection)
    post.delivery.finish(going.connection, b"bye")
    post.say()
    post.delivery.flush()
    assert going.read() == encode(Pong()) + line(1) + b"bye"
    assert gone.read() == encode(Pong()) + line(1)


def test_who_takes_nothing_is_not_looked_at_until_it_is_writable(post: Post) -> None:
    slow, quick = post.follower(room=0), post.follower()
    for _ in range(3):
        post.say()
        post.delivery.flush()
    assert quick.read() == line(1) + line(2) + line(3)
    assert len(slow.sends) == 1
    slow.room = EVERYTHING
    post.delivery.on_writable(slow.connection)
    assert slow.flush() == line(1) + line(2) + line(3)
    assert slow.connection.backlog is None, "it is at the head again"
    post.delivery.on_writable(slow.connection)
    assert not post.delivery.dirty
    post.say()
    assert slow.flush() == line(4)


def test_direct_lines_go_first_then_the_logs_then_files(post: Post) -> None:
    pipe = post.follower(post.room, post.other)
    post.say()
    post.say(log=post.other)
    post.delivery.tell_behind(pipe.connection, a_file())
    post.delivery.tell(pipe.connection, Pong())
    assert pipe.connection.bulk_bytes == 7
    assert repr(pipe.connection.backlog) == "<Backlog 16 B direct, 7 B of files>"
    assert pipe.flush() == encode(Pong()) + line(1) + line(1, "other") + b"a file\n"
    assert pipe.connection.bulk_bytes == 0


def test_files_that_there_was_no_room_for_stay_whole(post: Post) -> None:
    pipe = post.follower(room=len(encode(Pong())))
    post.delivery.tell(pipe.connection, Pong())
    post.delivery.tell_behind(pipe.connection, a_file())
    post.delivery.flush()
    assert pipe.connection.bulk_bytes == 7
    pipe.room = EVERYTHING
    assert pipe.flush() == encode(Pong()) + b"a file\n"


def test_files_take_turns(post: Post) -> None:
    pipe = post.follower()
    for name in (b"a", b"b"):
        pieces = Pieces()
        for number in range(3):
            pieces.append(name * BULK_BYTES + b"\n", number)
        assert repr(pieces) == f"<Pieces {3 * (BULK_BYTES + 1)} B>"
        post.delivery.tell_behind(pipe.connection, pieces)
    assert [each[:1] for each in pipe.flush().splitlines()] == [b"a", b"b"] * 3


def test_of_lines_about_the_same_the_last_is_sent(post: Post) -> None:
    pipe = post.follower()
    for number in range(5):
        for about in "ab":
            post.delivery.tell_latest(pipe.connection, about, Ping(number))
    post.delivery.tell_latest(pipe.connection, "c", Ping(7))
    post.delivery.take_back(pipe.connection, "c")
    post.delivery.tell_latest(pipe.connection, "a", Ping(9))
    assert pipe.flush() == encode(Ping(4)) + encode(Ping(9))
    post.delivery.take_back(pipe.connection, "a")
    assert pipe.flush() == b""


def test_a_log_of_which_nothing_is_known_yet_is_replayed(post: Post) -> None:
    post.say(5)
    pipe = Pipe(post.delivery)
    post.delivery.follow(pipe.connection, post.room, 2)
    assert pipe.flush() == line(3) + line(4) + line(5)


def test_any_partial_send_loses_and_repeats_nothing() -> None:
    expected = {line(1) + line(2) + line(1, "other") + line(2, "other"), encode(Pong())}
    for room in range(1, 120):
        post = Post()
        pipe = post.follower(post.room, post.other, room=room)
        got = b""
        post.say(2)
        post.say(2, post.other)
        post.delivery.flush()
        post.delivery.tell(pipe.connection, Pong())
        got = pipe.flush()
        assert sorted(got.splitlines()) == sorted(b"".join(expected).splitlines()), room
        assert [each for each in got.splitlines() if b"room" in each] == (line(1) + line(2)).splitlines()
        post.say()
        assert pipe.flush() == line(3), "at the head again"


def test_a_line_that_was_begun_is_finished_even_if_its_log_lost_it() -> None:
    post = Post(max_lines=3)
    pipe = post.follower(room=4)
    post.say()
    post.delivery.flush()
    post.say(5)
    begun, pipe.room = pipe.read(), EVERYTHING
    assert begun + pipe.flush() == line(1) + encode(Gap("room", 2)) + line(4) + line(5) + line(6)
    assert pipe.connection.skipped == 2


def test_what_falls_out_of_a_log_within_a_turn_is_announced() -> None:
    post = Post(max_lines=3)
    pipe = post.follower()
    post.say(5)
    assert post.delivery.flush() == [pipe.connection]
    assert pipe.read() == encode(Gap("room", 2)) + line(3) + line(4) + line(5)
    assert pipe.connection.skipped == 2
    post.say()
    assert post.delivery.flush() == []
    assert pipe.read() == line(6)


def test_a_gap_with_nothing_after_it() -> None:
    post = Post(max_bytes=60)
    pipe = post.follower()
    post.delivery.append(post.room, lambda name, seq: Joined(name, seq, "x" * 100))
    assert pipe.flush() == encode(Gap("room", 1))
    post.say()
    assert pipe.flush() == line(2)


def test_a_log_that_is_left(post: Post) -> None:
    pipe = post.follower(post.room, post.other)
    post.say(log=post.other)
    post.delivery.leave(pipe.connection, post.other)
    post.delivery.leave(pipe.connection, post.room)
    post.say(2)
    post.say(log=post.other)
    assert pipe.flush() == line(1, "other")


def test_who_stands_by_is_sent_nothing_but_answers(post: Post) -> None:
    pipe = post.follower()
    post.say()
    post.delivery.stand_by(pipe.connection)
    post.delivery.tell(pipe.connection, Ping())
    assert pipe.flush() == encode(Ping())
    post.say()
    assert pipe.flush() == b""


def test_the_last_line_is_the_end(post: Post) -> None:
    pipe = post.follower()
    post.say()
    post.delivery.tell_behind(pipe.connection, a_file())
    post.delivery.finish(pipe.connection, b"bye\n")
    post.say()
    pipe.connection.closing = True
    assert post.delivery.flush() == [pipe.connection]
    assert pipe.read() == line(1) + b"bye\n"
    assert pipe.connection.backlog is None


def test_who_is_closing_is_named_even_if_it_takes_nothing(post: Post) -> None:
    pipe = post.follower(room=0)
    post.say()
    post.delivery.flush()
    post.delivery.finish(pipe.connection)
    pipe.connection.closing = True
    assert post.delivery.flush() == [pipe.connection]
    assert pipe.connection.backlog is not None


@pytest.mark.parametrize("behind", [False, True])
def test_who_is_gone_is_forgotten(post: Post, behind: bool) -> None:
    pipe = post.follower()
    if behind:
        post.delivery.tell(pipe.connection, Ping())
    post.delivery.drop(pipe.connection)
    post.say()
    post.delivery.flush()
    assert pipe.read() == b""


def test_a_log_that_is_closed_has_nothing_to_be_sent(post: Post) -> None:
    post.say()
    post.delivery.close(post.room)
    assert not post.delivery.dirty


def test_more_than_a_batch_goes_out_batch_by_batch() -> None:
    post = Post(max_lines=10_000, max_bytes=1 << 20)
    pipe, slow = post.follower(), post.follower(room=BATCH_BYTES + 10)
    post.say(1)
    assert not post.delivery.due
    post.say(2_000)
    assert post.delivery.due
    post.delivery.flush()
    assert not post.delivery.due
    assert len(pipe.sends) == 2
    assert max(map(len, pipe.sends)) <= BATCH_BYTES <= DUE_BYTES
    expected = b"".join(map(line, range(1, 2_002)))
    assert pipe.read() == expected
    begun, slow.room = slow.read(), EVERYTHING
    assert begun + slow.flush() == expected


def test_several_logs_go_out_in_one_send(post: Post) -> None:
    both = [post.follower(post.room, post.other) for _ in range(2)]
    one = post.follower(post.other)
    for log in (post.room, post.other):
        post.say(2, log)
    post.delivery.flush()
    assert [pipe.sends[-1:] for pipe in (*both, one)] == [
        [line(1) + line(2) + line(1, "other") + line(2, "other")],
        [line(1) + line(2) + line(1, "other") + line(2, "other")],
        [line(1, "other") + line(2, "other")],
    ]
    assert both[0].sends[-1] is both[1].sends[-1]
    assert [len(pipe.sends) for pipe in (*both, one)] == [1, 1, 1]
    assert post.delivery.deliveries == 10
    assert all(pipe.connection.backlog is None for pipe in (*both, one))


@pytest.mark.parametrize("room", [0, 10, BATCH_BYTES, 2 * BATCH_BYTES - 100, 2 * BATCH_BYTES + 10, 3 * BATCH_BYTES])
def test_more_than_a_batch_of_several_logs(room: int) -> None:
    """Who stops in the second batch of one has been sent the first of the other."""
    post = Post(max_lines=10_000, max_bytes=1 << 20)
    pipe = post.follower(post.room, post.other, room=room)
    for log in (post.room, post.other):
        post.say(4_000, log)
    post.delivery.flush()
    begun, pipe.room = pipe.read(), EVERYTHING
    post.delivery.on_writable(pipe.connection)
    lines = (begun + pipe.flush()).splitlines(keepends=True)
    for name in ("room", "other"):
        assert [each for each in lines if name.encode() in each] == [line(seq, name) for seq in range(1, 4_001)]
    assert post.delivery.deliveries == 8_000
    assert pipe.connection.backlog is None


def test_full_bounds_direct_lines_only() -> None:
    post = Post(max_lines=10_000, max_bytes=1 << 20)
    pipe = post.follower(room=0)
    assert not pipe.connection.full
    post.say(3_000)
    post.delivery.flush()
    assert not pipe.connection.full
    while not pipe.connection.full:
        post.delivery.tell(pipe.connection, Pong())
    pipe.room = FULL_BYTES
    post.delivery.on_writable(pipe.connection)
    post.delivery.flush()
    assert not pipe.connection.full


steps = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "flush", "read", "tell", "bulk", "room"]), st.integers(0, 2), st.integers(0, 200)
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(3, 50))
def test_each_line_once_and_in_order(plan: list[tuple[str, int, int]], max_lines: int) -> None:
    """Three followers, each of whom takes what it can when it can: what it gets is what was said, less what is gone."""
    post = Post(max_lines=max_lines)
    pipes = [post.follower(post.room, post.other) for _ in range(3)]
    got, told, files, pieces = [b""] * 3, [0] * 3, [0] * 3, [Pieces() for _ in range(3)]
    for action, who, size in plan:
        match action:
            case "say":
                post.say(size % 7, (post.room, post.other)[who % 2])
            case "flush":
                post.delivery.flush()
            case "read":
                got[who] += pipes[who].read(size)
            case "tell":
                told[who] += 1
                post.delivery.tell(pipes[who].connection, Pong(told[who]))
            case "bulk":
                files[who] += 1
                pieces[who].append(encode(Ping(files[who])), files[who])
                post.delivery.tell_behind(pipes[who].connection, pieces[who])
            case "room":
                pipes[who].room = size
    for who, pipe in enumerate(pipes):
        got[who] += pipe.read()
        pipe.room = EVERYTHING
        post.delivery.on_writable(pipe.connection)
    post.delivery.flush()
    for who, pipe in enumerate(pipes):
        got[who] += pipe.read()
        assert pipe.connection.backlog is None
        check(got[who].splitlines(keepends=True), post, told[who], files[who])


def check(lines: list[bytes], post: Post, told: int, files: int) -> None:
    position = {"room": 0, "other": 0}
    for each in lines:
        for log in position:
            if f'"gap","log":"{log}"'.encode() in each:
                position[log] += int(each.split(b":")[-1].rstrip(b"}\n"))
            elif f'"log":"{log}"'.encode() in each:
                position[log] += 1
                assert each == line(position[log], log)
    assert position == {log.name: log.last_seq for log in (post.room, post.other)}
    assert [each for each in lines if b"pong" in each] == [encode(Pong(number + 1)) for number in range(told)]
    assert [each for each in lines if b"ping" in each] == [encode(Ping(number + 1)) for number in range(files)]

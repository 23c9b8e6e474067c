"""From binary records to tables: what is derived, and what a killed process leaves."""

from pathlib import Path
from unittest.mock import Mock

import gevent
import pytest

from chat.net.tcpinfo import TcpInfo
from loadtests import samples
from loadtests.load.engine import Engine
from loadtests.load.participant import Participant
from loadtests.load.recorder import Recorder
from loadtests.run.collect import read_records, start_ns_of, started, tables_of
from loadtests.samples import (
    DELIVERED,
    DELIVERED_AGAIN,
    ECHOED,
    ECHOED_AGAIN,
    FILE,
    LEFT,
    PAUSE,
    PROCESS,
    RECORDS,
    REFUSED,
    SENT,
    TABLES,
    TCP,
)
from loadtests.scenario.scenario import Scenario

MS = 1_000_000


def record_three_messages(folder: Path) -> int:
    """An echoed, a refused and a lost message; returns the start of the load in ns."""
    recorder = Recorder(folder)
    recorder.start()
    t0 = start_ns_of(folder)
    for message_id in (1, 2, 3):
        due = t0 + message_id * 1000 * MS
        recorder.add(SENT, 0, message_id, 0, 120, due, due + 2 * MS)
    recorder.add(ECHOED, 0, 1, t0 + 1000 * MS, 1, True, t0 + 1052 * MS, t0 + 1053 * MS, 900)
    recorder.add(REFUSED, 0, 2)
    recorder.add(DELIVERED, 1, 0, 1, 0, 0, True, t0 + 1027 * MS, t0 + 1028 * MS, 800)
    recorder.add(TCP, 0, 0, t0 + 1000 * MS, 50_000, 1000, 49_000, 3, 400, 5000, 40, 0, 3, 10, 1000)
    recorder.add(LEFT, 0, 12, 7, 1, 200 * MS, t0 + 300 * MS)
    recorder.add(LEFT, 1, 0, 0, 2, 0, 0)
    recorder.add(FILE, 0, 1, 125_000, t0 + 500 * MS, t0 + 1000 * MS, 4096, 0)
    recorder.add(FILE, 1, 0, 125_000, t0 + 600 * MS, t0 + 1000 * MS, 0, 3)
    recorder.add(ECHOED_AGAIN, 0, 1, 0, True, t0 + 1060 * MS, t0 + 1060 * MS, 700)
    recorder.add(PAUSE, t0 + 500 * MS, 22 * MS, 2)
    recorder.add(PROCESS, t0 + 1000 * MS, 50 * MS, 0, 80_000_000)
    recorder.add(PROCESS, t0 + 2000 * MS, 350 * MS, 40 * MS, 81_000_000)
    recorder.flush()
    return int(t0)


def test_tables_are_derived_from_records(tmp_path: Path) -> None:
    record_three_messages(tmp_path)
    tables = tables_of(tmp_path, trial=4, warmup_s=1.5, paths={})
    messages = tables["messages"].set_index("id")
    assert list(messages["outcome"]) == ["echoed", "refused", "lost"]
    assert messages.loc[1, "response_time_ms"] == pytest.approx(52)
    assert messages.loc[1, "service_time_ms"] == pytest.approx(50)
    assert messages.loc[1, "send_lag_ms"] == pytest.approx(2)
    assert messages.loc[1, "seen_lag_ms"] == pytest.approx(1)
    assert messages.loc[1, ["path", "stamp"]].tolist() == ["secondary", "kernel"]
    assert messages.loc[1, "second_copy_lag_ms"] == pytest.approx(8)
    assert messages.loc[1, ["first_delivery_ms", "last_delivery_ms"]].tolist() == pytest.approx([25, 25])
    assert tables["pauses"].loc[0, ["time_s", "duration_ms"]].tolist() == pytest.approx([0.5, 22])
    assert messages["response_time_ms"].isna().tolist() == [False, True, True]
    assert messages["warmup"].tolist() == [1, 0, 0]
    assert tables["deliveries"].loc[0, "one_way_delay_ms"] == pytest.approx(25)
    assert tables["tcp"].loc[0, ["retransmissions", "rtt_ms", "delivery_rate_bps"]].tolist() == [3, 50.0, 8000]
    assert tables["clients"].loc[0, ["copies_dropped", "registration_ms"]].tolist() == [7, 200]
    assert tables["clients"]["registration_ms"].isna().tolist() == [False, True], "the second was not let in"
    assert tables["clients"]["let_in_s"].tolist() == pytest.approx([0.3, float("nan")], nan_ok=True)
    files = tables["files"]
    assert files.loc[0, ["started_s", "duration_ms", "goodput_bps"]].tolist() == pytest.approx([0.5, 500, 2e6])
    assert files["outcome"].tolist() == ["done", "failed"]
    assert files["goodput_bps"].isna().tolist() == [False, True]
    (process,) = tables["machine"].to_dict("records")
    assert process["process"] == "load"
    assert process["cpu_percent"] == pytest.approx(30), "300 ms of CPU in the second before"
    for name, table in tables.items():
        assert list(table.columns) == list(TABLES[name])
        assert set(table["trial"]) == {4}


def test_the_copy_that_arrived_first_counts_whichever_was_read_first(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start()
    t0 = start_ns_of(tmp_path)
    for message_id in (1, 2):
        recorder.add(SENT, 0, message_id, 0, 120, t0, t0)
        recorder.add(ECHOED, 0, message_id, t0, 0, True, t0 + 49 * MS, t0 + 50 * MS, 900)
    recorder.add(ECHOED_AGAIN, 0, 1, 1, False, t0 + 7 * MS, t0 + 51 * MS, 900)
    recorder.add(SENT, 0, 3, 0, 120, t0, t0)
    recorder.add(ECHOED, 0, 3, t0, 0, True, t0 + 20 * MS, t0 + 20 * MS, 900)
    recorder.add(ECHOED_AGAIN, 0, 3, 1, False, t0 + 25 * MS, t0 + 51 * MS, 900)
    for message_id in (1, 2):  # after a reconnection: no other connection's copy
        recorder.add(ECHOED_AGAIN, 0, message_id, 0, True, t0 + 60 * MS, t0 + 61 * MS, 900)
    recorder.add(DELIVERED, 1, 0, 1, 0, 1, True, t0 + 30 * MS, t0 + 31 * MS, 900)
    recorder.add(DELIVERED_AGAIN, 1, 0, 1, 0, True, t0 + 25 * MS, t0 + 32 * MS, 900)
    recorder.flush()
    tables = tables_of(tmp_path, trial=1, warmup_s=0, paths={})
    messages = tables["messages"].set_index("id")
    assert messages["response_time_ms"].tolist() == pytest.approx([7, 49, 20])
    assert messages["seen_lag_ms"].tolist() == pytest.approx([43, 1, 0])
    assert messages["second_copy_lag_ms"].tolist() == pytest.approx([42, float("nan"), 5], nan_ok=True)
    assert messages["path"].tolist() == ["secondary", "primary", "primary"]
    assert messages["stamp"].tolist() == ["read", "kernel", "read"], "the other copy of the last may have come before"
    (delivery,) = tables["deliveries"].to_dict("records")
    assert (delivery["path"], delivery["one_way_delay_ms"]) == ("primary", pytest.approx(25))


def test_a_message_that_the_client_does_not_take_is_lost_and_has_a_row(tmp_path: Path) -> None:
    reported: list[str] = []
    recorder = Recorder(tmp_path)
    recorder.start()
    engine = Engine(
        Scenario(),
        lambda: (("127.0.0.1", 1), None),
        recorder,
        lambda kind, *_: reported.append(kind),
        tls=None,
        nick_prefix="aa",
    )
    user, other = Participant(engine, 0), Mock()
    engine.members[1] = other
    user.client.close()
    user.say("to all", recorder.start_ns + 10 * MS)
    user.tell("aa-1", "to one", recorder.start_ns + 20 * MS)
    engine.loop.close()
    recorder.flush()
    messages = tables_of(tmp_path, trial=1, warmup_s=0, paths={})["messages"]
    assert messages["kind"].tolist() == ["say", "tell"]
    assert messages["outcome"].tolist() == ["lost", "lost"]
    assert messages["intended_s"].tolist() == pytest.approx([0.01, 0.02])
    assert messages["id"].tolist() == [1_000_000_000, 1_000_000_001]
    assert reported == ["lost", "lost"]
    other.expect.assert_not_called()  # nothing is on its way to it


def test_the_connections_of_who_leaves_are_sampled_until_they_are_gone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.start()
    engine = Engine(Scenario(), lambda: (("127.0.0.1", 1), None), recorder, lambda *_: None, tls=None, nick_prefix="aa")
    user = Participant(engine, 0)
    user.client = client = Mock(registered=True, rooms=["lobby"], pending=1, closed=False, duplicates=0)
    client.tcp_info.return_value = {"primary": TcpInfo()}

    def sampled() -> int:
        engine._sample()
        return len(read_records(tmp_path, TCP))

    user._registered.set()
    user.join()
    assert sampled() == 1
    leaving = gevent.spawn(user.leave)
    gevent.sleep(0)
    assert engine.member("aa-0") is None, "nobody sends it anything any more"
    assert sampled() == 2, "what it said last is still on its way"
    client.pending, client.closed = 0, True
    user.expect(0)
    leaving.get()
    assert sampled() == 2
    engine.loop.close()


def test_server_side_of_tcp_is_joined_by_path_and_user(tmp_path: Path) -> None:
    t0 = record_three_messages(tmp_path)
    columns = ["at_ns", "nick", "local_address", *list(TCP.fields)[3:]]
    values = [str(t0 + 1000 * MS), "523e-0", "10.0.0.2", *["5"] * (len(columns) - 3)]
    (tmp_path / "server-tcp.csv").write_text(",".join(columns) + "\n" + ",".join(values) + "\n")
    tcp = tables_of(tmp_path, trial=1, warmup_s=0, paths={"10.0.0.2": "secondary"})["tcp"].set_index("side")
    assert tcp.loc["server", ["path", "user", "retransmissions"]].tolist() == ["secondary", 0, 5]


def test_a_record_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    record_three_messages(tmp_path)
    file = next(tmp_path.glob("*.sent"))
    file.write_bytes(file.read_bytes()[:-1])
    assert read_records(tmp_path, SENT)["id"].tolist() == [1, 2]


def test_a_trial_that_never_began_makes_empty_tables(tmp_path: Path) -> None:
    assert started(tmp_path) is None
    for name, table in tables_of(tmp_path, trial=1, warmup_s=0, paths={}).items():
        assert table.empty
        assert list(table.columns) == list(TABLES[name])


def test_recorder_without_a_folder_keeps_nothing() -> None:
    recorder = Recorder(None)
    recorder.start()
    recorder.add(REFUSED, 0, 1)
    recorder.flush()


def test_record_types_have_names_of_their_own() -> None:
    assert len({record.name for record in RECORDS}) == len(RECORDS)


def test_column_dictionary_in_the_readme_is_current() -> None:
    readme = (Path(__file__).parents[2] / "results" / "README.md").read_text()
    assert readme.endswith(samples.columns_markdown()), "run: python -m loadtests.samples"


def test_times_count_from_the_first_of_several_tests(tmp_path: Path) -> None:
    """Whoever starts a test again in Locust's web UI has the records of both in one folder."""
    recorder = Recorder(tmp_path)
    recorder.start()
    t0 = recorder.start_ns
    recorder.add(SENT, 0, 1, 0, 120, t0, t0)
    recorder.start()
    recorder.add(SENT, 1, 1, 0, 120, recorder.start_ns, recorder.start_ns)
    recorder.flush()
    times_s = tables_of(tmp_path, trial=1, warmup_s=0, paths={})["messages"]["intended_s"]
    assert times_s.tolist() == [0, (recorder.start_ns - t0) / 1e9]

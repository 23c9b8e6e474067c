"""Numbers derived from a run's tables, checked against runs made by hand."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.analysis.plots import over_time
from loadtests.analysis.read import OLDEST_SCHEMA, Run, SeveralRuns, open_run
from loadtests.analysis.stats import connections, retransmissions, rfc3550_jitter_ms, second_connection, summarise
from loadtests.analysis.sweeps import heat_map, quantities, sweep
from loadtests.cli import main
from loadtests.commands.report import finish
from loadtests.errors import ExitCode, HarnessError
from loadtests.percentiles import is_known, least_count, percentiles
from loadtests.run.manifest import Manifest, TrialRecord
from loadtests.samples import SCHEMA_VERSION, TABLES


def write_run(
    folder: Path,
    rows: dict[str, list[dict[str, object]]],
    variants: list[dict[str, str]],
    repetitions: list[int] | None = None,
) -> Run:
    labels: dict[str, list[str]] = {key: list(dict.fromkeys(v[key] for v in variants)) for key in variants[0]}
    counted = repetitions or [1] * len(variants)
    trials = [
        TrialRecord(number=n, name=" ".join(variant.values()), variant=variant, repetition=repetition, state="finished")
        for n, (variant, repetition) in enumerate(zip(variants, counted, strict=True), 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    Manifest(scenario={"vary": labels}, labels=labels, trials=trials, state="finished").write(folder)
    for table in ("messages", "deliveries", "tcp", "clients", "files"):
        pd.DataFrame(rows.get(table, []), columns=list(TABLES[table])).to_csv(folder / f"{table}.csv", index=False)
    return Run(folder)


def message(trial: int, response_ms: float | None, *, outcome: str = "echoed", warmup: int = 0) -> dict[str, object]:
    return {"trial": trial, "user": 1, "id": 1, "response_time_ms": response_ms, "outcome": outcome, "warmup": warmup}


def test_summary_counts_what_happened_and_leaves_out_the_warmup(tmp_path: Path) -> None:
    times = [10.0, 20.0, 30.0, 40.0]
    messages = [message(1, value) for value in times]
    messages += [message(1, None, outcome="lost"), message(1, None, outcome="refused"), message(1, 999.0, warmup=1)]
    delivery = {"trial": 1, "receiver": 2, "sender": 1, "id": 5, "one_way_delay_ms": 7.0, "received_s": 1.0}
    tcp = [
        {"trial": 1, "side": "client", "user": 1, "path": "primary", "time_s": when, "retransmissions": count}
        for when, count in ((1.0, 2), (2.0, 5))
    ]
    tcp.append(tcp[-1] | {"side": "server", "retransmissions": 4})
    rows = {"messages": messages, "deliveries": [delivery, delivery], "tcp": tcp}
    rows["clients"] = [{"trial": 1, "user": 1, "copies_dropped": 3, "path_failures": 0}]
    row = summarise(write_run(tmp_path, rows, [{"link": "lan"}])).iloc[0]
    assert row["count"] == 6
    assert row[["average_ms", "minimum_ms", "maximum_ms", "p50_ms"]].tolist() == [25, 10, 40, 30]
    assert row["stddev_ms"] == pytest.approx(pd.Series(times).std())
    assert row["p99_ms"] == float("inf"), "one of five was lost: it waits forever"
    assert row[["lost", "refused", "duplicated", "copies_dropped"]].tolist() == [1, 1, 1, 3]
    assert row["retransmissions"] == 9, "the last count of each end, not the sum of all samples"


def test_jitter_is_that_of_the_order_of_arrival_however_the_rows_are_sorted(tmp_path: Path) -> None:
    """As by a spreadsheet; of two trials, whose times overlap."""
    delays_ms = [5.0, 50.0, 6.0, 40.0]
    rows = [
        {"trial": trial, "receiver": 2, "sender": 1, "id": id_, "received_s": id_ / 10, "one_way_delay_ms": trial * ms}
        for trial in (1, 2)
        for id_, ms in enumerate(delays_ms)
    ]
    variants = [{"link": "lan"}, {"link": "4g"}]
    by_delay = sorted(rows, key=lambda row: row["one_way_delay_ms"])
    for number, deliveries in enumerate((rows, by_delay)):
        run = write_run(tmp_path / str(number), {"deliveries": deliveries}, variants)
        jitters_ms = [rfc3550_jitter_ms(np.array(delays_ms) * trial) for trial in (1, 2)]
        assert summarise(run)["jitter_ms"].tolist() == pytest.approx(jitters_ms)


def test_a_varied_warmup_is_a_condition_and_still_left_out(tmp_path: Path) -> None:
    rows = {"messages": [message(1, 5.0), message(1, 9.0, warmup=1), message(2, 7.0)]}
    run = write_run(tmp_path, rows, [{"warmup": "1s"}, {"warmup": "2s"}])
    summary = summarise(run).set_index("warmup")
    assert summary["maximum_ms"].to_dict() == {"1s": 5.0, "2s": 7.0}
    assert run.measured("warmup")["warmup"].tolist() == ["1s", "2s"]


def test_a_part_of_a_run_has_its_trials_alone(tmp_path: Path) -> None:
    variants = [{"link": link, "connections": mode} for link in ("lan", "4g") for mode in ("single", "redundant")]
    run = write_run(tmp_path, {"messages": [message(trial, 5.0 * trial) for trial in (1, 2, 3, 4)]}, variants)
    assert summarise(run.only({"link": "4g"}))["maximum_ms"].tolist() == [15.0, 20.0]
    both = run.only({"link": ["lan", "4g"]}).only({"connections": "single"})
    assert summarise(both)["variant"].tolist() == ["lan single", "4g single"]
    assert len(summarise(run)) == 4, "the run itself stays whole"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda run: run.only({"lnk": "lan"}), "lnk is no varied key; expected one of: link"),
        (lambda run: run.only({"link": "5g"}), "5g is no value of link; expected one of: lan, 4g"),
        (lambda run: run.table("mesages"), "mesages is no table; expected one of: messages, "),
        (lambda run: run.measured("respons_ms"), "respons_ms is no column of messages; expected one of: trial, user, "),
    ],
)
def test_a_name_that_is_none_is_not_taken_for_damage(tmp_path: Path, ask: Callable[[Run], object], said: str) -> None:
    run = write_run(tmp_path, {}, [{"link": "lan"}, {"link": "4g"}])
    with pytest.raises(HarnessError, match=f"^{re.escape(said)}"):
        ask(run)


def test_summary_of_a_trial_in_which_nothing_was_answered(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"messages": [message(1, None, outcome="lost")]}, [{"link": "lan"}])
    row = summarise(run).iloc[0]
    assert (row["count"], row["lost"]) == (1, 1)
    assert row["p50_ms"] == float("inf")
    assert pd.isna(row["average_ms"])


def test_a_run_that_was_killed_in_its_first_trial_has_no_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Manifest(scenario={"vary": {"link": ["lan"]}}, labels={"link": ["lan"]}).write(tmp_path)
    assert main(["report", str(tmp_path)]) == ExitCode.NOT_TRUSTWORTHY
    assert "NOT TRUSTWORTHY: no trial came to its end\n" in capsys.readouterr().out


def test_a_trial_of_any_number_can_be_read(tmp_path: Path) -> None:
    Manifest(trials=[TrialRecord(number=2**64, name="lan", state="finished")]).write(tmp_path)
    assert Run(tmp_path).trials["trial"].tolist() == [2**64]


def test_retransmissions_of_a_connection_that_broke_count_too(tmp_path: Path) -> None:
    """The next connection on its path counts from 0 again."""
    end = {"trial": 1, "side": "client", "user": 1, "path": "primary"}
    samples = [(1.0, 500, 2), (2.0, 900, 5), (3.0, 100, 0), (4.0, 400, 3)]
    tcp = [end | {"time_s": at_s, "sent_bytes": sent, "retransmissions": count} for at_s, sent, count in samples]
    run = write_run(tmp_path, {"messages": [message(1, 9.0)], "tcp": tcp}, [{"link": "lan"}])
    assert retransmissions(run)["retransmissions"].tolist() == [5, 3]


@given(st.lists(st.booleans(), max_size=29))
def test_retransmissions_of_a_dead_connection_count_once_in_whatever_order_it_is_sampled(order: list[bool]) -> None:
    """The server's end of a connection that broke is sampled on beside the one that replaced it."""
    dead = iter([26_802 + 1448 * n, 86 + n, 7050, 5 + n] for n in range(30))
    live = iter([70, 2, 0, n] for n in range(30))
    assert connections(next(live if is_live else dead) for is_live in [False, *order]) == [0, *order]


def test_the_retransmissions_of_a_server_that_samples_two_connections_are_the_last_of_each(tmp_path: Path) -> None:
    end = {"trial": 1, "side": "server", "user": 1, "path": "primary"}
    samples = [(1.0, 900, 4), (2.0, 900, 5), (2.1, 70, 0), (3.0, 900, 5), (3.1, 80, 1), (4.0, 950, 6), (4.1, 80, 1)]
    tcp = [end | {"time_s": at_s, "sent_bytes": sent, "retransmissions": count} for at_s, sent, count in samples]
    run = write_run(tmp_path, {"messages": [message(1, 9.0)], "tcp": tcp}, [{"link": "lan"}])
    assert summarise(run)["retransmissions"].tolist() == [7]


def test_jitter_follows_rfc3550() -> None:
    # |D| = 16 once, then 0: J = 1, and then decays by 1/16 a packet.
    assert rfc3550_jitter_ms([5.0, 21.0]) == pytest.approx(1.0)
    assert rfc3550_jitter_ms([5.0, 21.0, 21.0]) == pytest.approx(15 / 16)
    assert pd.isna(rfc3550_jitter_ms([5.0]))


def test_delays_are_those_of_messages_after_the_warmup_that_nothing_disturbed(tmp_path: Path) -> None:
    """A link that is bad in the warm-up alone; ids of the two trials differ, and user 3 says nothing later."""
    warmup = [(1, 1, 1, 900.0, 0), (1, 1, 2, 500.0, 0), (1, 3, 1, 700.0, 0), (2, 1, 3, 800.0, 0)]
    after = [(1, 1, 3, 5.0, 0), (1, 1, 4, 21.0, 0), (1, 1, 5, 400.0, 1), (1, 1, 6, 21.0, 0), (2, 1, 4, 7.0, 0)]
    messages = [
        {"trial": trial, "user": sender, "id": number, "outcome": "echoed", "warmup": is_warmup, "disturbed": disturbed}
        for is_warmup, sent in ((1, warmup), (0, after))
        for trial, sender, number, _, disturbed in sent
    ]
    deliveries = [
        {"trial": trial, "receiver": 2, "sender": sender, "id": number}
        | {"one_way_delay_ms": delay_ms, "disturbed": disturbed}
        for trial, sender, number, delay_ms, disturbed in [*warmup, *after]
    ]
    run = write_run(tmp_path, {"messages": messages, "deliveries": deliveries}, [{"link": "a"}, {"link": "b"}])
    first, second = (row for _, row in summarise(run).iterrows())
    steps_ms, delays_ms = [16.0, 0.0], [5.0, 21.0, 21.0]
    assert first["jitter_ms"] == pytest.approx(15 / 16)
    assert first["ipdv_p95_ms"] == pytest.approx(np.quantile(steps_ms, 0.95))
    assert first["pdv_p95_ms"] == pytest.approx(np.quantile(delays_ms, 0.95) - 5)
    assert second["pdv_p95_ms"] == 0
    assert run.delivered("one_way_delay_ms")["one_way_delay_ms"].tolist() == [5, 21, 21, 7]


def test_jitter_of_a_long_stream_is_that_of_the_recurrence() -> None:
    delays = np.random.default_rng(1).exponential(10, 5000)
    jitter = 0.0
    for difference in np.abs(np.diff(delays)):
        jitter += (difference - jitter) / 16
    assert rfc3550_jitter_ms(delays) == pytest.approx(jitter, rel=1e-12)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_percentiles_without_losses_are_those_of_numpy(times: list[float], share: float) -> None:
    assert percentiles(times, [share]) == pytest.approx([np.quantile(times, share)])


def test_a_percentile_is_infinite_from_the_first_lost_message_on() -> None:
    times = [*range(98), np.nan, np.nan]
    p50, p97, p98 = percentiles(times, [0.50, 0.97, 0.98])
    assert (p50, p98) == (49.5, float("inf"))
    assert p97 == pytest.approx(96.03)


@pytest.mark.parametrize(("count", "known"), [(999, False), (1000, True)])
def test_a_percentile_needs_ten_messages_beyond_it(count: int, known: bool) -> None:
    assert is_known(count, 0.99) == known
    assert least_count(0.99) == 1000


def test_second_connection_is_judged_on_the_same_link(tmp_path: Path) -> None:
    variants = [{"link": link, "connections": mode} for link in ("lan", "wifi") for mode in ("single", "redundant")]
    levels = [1.0, 2.0, 100.0, 50.0]
    messages = [message(trial, level) for trial, level in enumerate(levels, 1) for _ in range(1000)]
    ratios = second_connection(write_run(tmp_path, {"messages": messages}, variants)).set_index("link")
    assert ratios.loc["lan", "p99 ratio"] == pytest.approx(2.0)
    assert ratios.loc["wifi", "p99 ratio"] == pytest.approx(0.5)


def test_second_connection_alone_may_be_varied(tmp_path: Path) -> None:
    messages = [message(trial, level) for trial, level in ((1, 10.0), (2, 5.0)) for _ in range(20)]
    run = write_run(tmp_path, {"messages": messages}, [{"connections": "single"}, {"connections": "redundant"}])
    assert second_connection(run)["p50 ratio"].tolist() == [0.5]
    assert second_connection(run)["p95 ratio"].isna().all(), "of 20 messages one is beyond it"


def test_second_connection_without_single_is_empty(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"messages": [message(1, 1.0)]}, [{"link": "lan"}])
    assert second_connection(run).empty


def test_changes_of_a_link_are_marked_where_it_changed(tmp_path: Path) -> None:
    messages = [message(trial, 9.0) | {"intended_s": 1.0} for trial in (1, 2)]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}, {"link": "train"}])
    assert run.link_changes.empty, "no link was impaired"
    change = {"trial": 2, "when": "change", "path": "primary"}
    rows = [change | {"time_s": time_s, "direction": way} for time_s in (1.51, 2.5) for way in ("up", "down")]
    pd.DataFrame([*rows, {"trial": 1, "when": "before"}], columns=list(TABLES["link"])).to_csv(tmp_path / "link.csv")
    assert run.link_changes["time_s"].tolist() == [1.51, 1.51, 2.5, 2.5]
    assert [picture.alt for picture in over_time(run).pictures] == [
        "Response time of each message over time, lan",
        "Response time of each message over time, train",
    ]


def test_open_run_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        open_run(tmp_path)


@pytest.mark.parametrize("version", [OLDEST_SCHEMA - 1, SCHEMA_VERSION + 1, None])
def test_a_run_of_another_version_is_refused_with_a_sentence(tmp_path: Path, version: int | None) -> None:
    write_run(tmp_path, {}, [{"link": "lan"}])
    plain = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(plain | {"schema_version": version}))
    with pytest.raises(HarnessError, match=f"schema version {version}, this chatlab reads {OLDEST_SCHEMA} to"):
        open_run(tmp_path)


TWICE = '{"schema_version":5,"trials":[{"number":1,"name":"a"},{"number":1,"name":"b"}]}'
UNLABELLED = '{"schema_version":5,"labels":{"link":["lan"]},"trials":[{"number":1,"name":"a"}]}'


def test_whoever_stops_reading_a_report_is_no_disk_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`chatlab report RUN | head -1`, where Python's output is not buffered."""

    def read_until_the_report(text: object) -> None:
        if str(text).startswith("report:"):
            raise BrokenPipeError

    run = write_run(tmp_path, {"messages": [message(1, 5.0)]}, [{"link": "lan"}])
    monkeypatch.setattr("loadtests.analysis.report.write_report", lambda path, **_: path / "report.html")
    monkeypatch.setattr("loadtests.commands.report.print", read_until_the_report, raising=False)
    with pytest.raises(BrokenPipeError):
        finish(run.path)
    assert "cannot be written" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["messages", "clients"])
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path, {}, [{"link": "lan"}])
    (tmp_path / f"{name}.csv").unlink()
    (tmp_path / f"{name}.csv").mkdir()  # root may read any file, whatever its mode
    with pytest.raises(HarnessError, match=f"{name}.csv: cannot be read: is a directory"):
        run.table(name)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("messages.csv", ",".join(TABLES["messages"]) + "\none\n", "line 2: "),
        ("messages.csv", "trial,user\n1,0\n", "it has no column id"),
        (
            "messages.csv",
            f"{','.join(TABLES['messages'])}\n1{',' * (len(TABLES['messages']) - 1)}\n",
            "line 2: column ",
        ),
        ("messages.csv", ";".join(TABLES["messages"]) + "\n", "its values are separated by ';'; expected ','"),
        ("tcp.csv", "trial,rtt_ms\n1,2.5\n", "it has no column "),
        ("link.csv", f"{','.join(TABLES['link'])}\n1\nslow\n", "line 3, column trial: not a number: 'slow'"),
        ("link.csv", f'{",".join(TABLES["link"])}\n1,"2\n', "damaged, or not chatlab's"),
        ("run.json", "{", "damaged, or not chatlab's"),
        ("run.json", "[]", "damaged, or not chatlab's"),
        ("run.json", TWICE, "there are 2 trials 1"),
        ("run.json", UNLABELLED, "trial 1 does not say its link, which the scenario varied"),
    ],
)
def test_what_is_damaged_gets_a_sentence_that_names_the_file(
    tmp_path: Path, file: str, content: str, words: str
) -> None:
    write_run(tmp_path, {}, [{"link": "lan"}])
    (tmp_path / file).write_text(content)
    with pytest.raises(HarnessError) as refused:
        open_run(tmp_path).rows(Path(file).stem)
    assert str(refused.value).startswith(f"{tmp_path / file}: ")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tables_of_an_older_version_get_the_columns_of_today(tmp_path: Path) -> None:
    write_run(tmp_path, {}, [{"link": "lan"}])
    plain = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(plain | {"schema_version": OLDEST_SCHEMA}))
    run = open_run(tmp_path)
    columns = [name for name in TABLES["messages"] if name not in ("stamp", "disturbed")] + ["exact"]
    rows = [message(1, 5.0) | {"exact": exact} for exact in (1, 0)]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "messages.csv", index=False)
    assert run.measured("stamp")["stamp"].tolist() == ["kernel", "read"]
    for name in ("files", "link"):
        older = [column for column in TABLES[name] if column != "disturbed"]
        pd.DataFrame([{"trial": 1, "outcome": "done"}], columns=older).to_csv(tmp_path / f"{name}.csv", index=False)
    assert summarise(run)["files"].tolist() == [1]


def test_a_spreadsheet_may_have_saved_a_table(tmp_path: Path) -> None:
    run = write_run(tmp_path, {}, [{"link": "lan"}])
    for name, row in (("messages", message(1, 5.0)), ("link", {"trial": 1, "metric": "rate"})):
        table = pd.DataFrame([row], columns=TABLES[name])
        table.to_csv(tmp_path / f"{name}.csv", index=False, encoding="utf-8-sig", quoting=csv.QUOTE_ALL)
    assert run.rows("messages")["response_time_ms"].tolist() == [5.0]
    assert run.rows("link")["metric"].tolist() == ["rate"]


def test_open_run_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, {}, [{"link": "lan"}])
    monkeypatch.setenv("CHATLAB_RUN", str(tmp_path))
    assert open_run().path == tmp_path


def test_several_runs_are_one_whose_conditions_are_variant_and_run(tmp_path: Path) -> None:
    times = {"before": 10.0, "after": 20.0}
    runs = [
        write_run(tmp_path / name, {"messages": [message(n, ms) for n in (1, 2)]}, [{"link": "lan"}, {"link": "4g"}])
        for name, ms in times.items()
    ]
    together = SeveralRuns(runs)
    assert together.rows("messages")["trial"].tolist() == [1, 2, 3, 4]
    found = summarise(together).set_index(["variant", "run"])["p50_ms"]
    assert found.to_dict() == {(link, name): ms for link in ("lan", "4g") for name, ms in times.items()}


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / month / "demo" for month in ("may", "june")]
    runs = [write_run(folder, {"messages": [message(1, 9.0)]}, [{"link": "lan"}]) for folder in folders]
    together = SeveralRuns(runs)
    assert together.names == ["may/demo", "june/demo"]
    assert summarise(together)["run"].tolist() == together.names
    with pytest.raises(HarnessError, match=r"may/demo: the run is given twice"):
        SeveralRuns([runs[0], runs[0]])


SWEPT = [{"link.loss": loss, "link.rtt": rtt} for loss in ("0%", "2%") for rtt in ("10ms", "50ms")]


def test_swept_quantities_become_a_curve_and_a_map(tmp_path: Path) -> None:
    messages = [message(n, 10.0 * n) | {"intended_s": at / 10} for n in range(1, 5) for at in range(30)]
    run = write_run(tmp_path, {"messages": messages}, SWEPT)
    assert quantities(run, "link.loss") == ([0, 2], "%")
    assert quantities(run, "link.rtt") == ([10, 50], "ms")
    assert [picture.alt for picture in sweep(run).pictures] == [
        "p50 of response time over link.loss, with 95 % intervals"
    ]
    assert "0%: 10ms 10, 50ms 20; 2%: 10ms 30, 50ms 40" in heat_map(run).pictures[0].alt


def test_a_count_is_a_quantity_and_a_seed_is_none(tmp_path: Path) -> None:
    variants = [{"users.BroadcastUser": users, "seed": seed} for users in ("2", "10") for seed in ("1", "2")]
    messages = [message(n, 10.0 * n) | {"intended_s": at / 10} for n in range(1, 5) for at in range(30)]
    run = write_run(tmp_path, {"messages": messages}, variants)
    assert (quantities(run, "users.BroadcastUser"), quantities(run, "seed")) == (([2, 10], ""), None)
    assert [picture.alt for picture in sweep(run).pictures] == [
        "p50 of response time over users.BroadcastUser, with 95 % intervals"
    ]


def test_a_run_that_sweeps_nothing_names_the_scenario_that_does(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"messages": [message(1, 9.0)]}, [{"link": "lan"}])
    assert "loss-delay" in heat_map(run).note
    assert "loss-sweep" in sweep(run).note

"""Every notebook runs headless; the report needs nothing from elsewhere."""

import html
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from browser import browser, needs_browser
from test_stats import message, write_run

from loadtests.analysis import plots, questions
from loadtests.analysis.plots import distribution, drawn_processes, over_time, percentile_table
from loadtests.analysis.read import Run
from loadtests.analysis.report import circumstances, page
from loadtests.analysis.stats import presentable, summarise
from loadtests.cli import main
from loadtests.commands.report import shown
from loadtests.data import NOTEBOOKS
from loadtests.samples import TABLES

if TYPE_CHECKING:
    from nbclient import NotebookClient

pytestmark = pytest.mark.long

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
NAMES = sorted(file.stem for file in NOTEBOOKS.glob("0*.ipynb"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    messages = [
        message(trial, 10.0 * trial + n)
        | {"intended_s": n / 10, "sent_s": n / 10, "path": "primary", "user": 1, "id": n}
        for trial in (1, 2)
        for n in range(40)
    ]
    folder = tmp_path_factory.mktemp("runs") / "made"
    made = write_run(folder, {"messages": messages}, [{"link": "lan"}, {"link": "<script>"}])
    used = [
        {"trial": trial, "time_s": 2.0, "process": process, "cpu_percent": 9.0}
        for trial in (1, 2)
        for process in ("load", "machine")
    ]
    pd.DataFrame(used, columns=list(TABLES["machine"])).to_csv(made.path / "machine.csv", index=False)
    return made


@pytest.fixture(scope="module")
def report(run: Run) -> str:
    return page(run)


@pytest.fixture(scope="module")
def kernel() -> Iterator["NotebookClient"]:
    """One for all notebooks: it starts, and imports what they share, once."""
    import nbformat  # which compiles a grammar: not in every worker that collects this file
    from nbclient import NotebookClient

    client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", extra_arguments=["--log-level=40"])
    environment = os.environ | {"CHATLAB_RUN": str(REFERENCE), "PYTHONPATH": os.pathsep.join(sys.path)}
    with client.setup_kernel(env=environment):
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_on_the_reference_run_and_defines_no_function(name: str, kernel: "NotebookClient") -> None:
    import nbformat

    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert not any(re.search(r"\bdef |\blambda\b", cell.source) for cell in notebook.cells)
    notebook.cells.append(nbformat.v4.new_code_cell("%reset -f"))  # the next one finds no name of this one
    kernel.nb = notebook
    for index, cell in enumerate(notebook.cells):
        kernel.execute_cell(cell, index)
    first = notebook.cells[0].outputs[-1]["data"]["text/html"]
    assert first.startswith("<h2>")
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert not any(kind.startswith("image/") for data in shown for kind in data)  # it would have no alternative text
    text = "".join(data.get("text/html", "") for data in shown)
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import""", text)
    assert text.count("<img") == len(re.findall(r'<img src="data:[^"]+" alt="[^"]{10,}"', text))


@pytest.mark.parametrize(
    ("question", "scenario"),
    [(questions.queues, "bandwidth-sweep"), (questions.second_connection_gain, "demo"), (questions.files, "FileUser")],
)
def test_where_a_run_cannot_answer_the_scenario_that_would_is_named(
    run: Run, question: Callable[[Run], questions.Answer], scenario: str
) -> None:
    answer = question(run)
    assert scenario in str(answer)
    assert re.search(f"<code>[^<]*{scenario}[^<]*</code>", answer._repr_html_())


def test_the_report_needs_nothing_from_elsewhere_and_escapes_what_it_was_given(report: str) -> None:
    assert "<script" not in report
    assert not re.search(r'(?:src|href)="(?!data:)', report)
    assert report.count("<img") == len(re.findall(r'<img src="data:[^"]+" alt="[^"]{10,}"', report)) > 8
    assert "&lt;script&gt;" in report


def test_the_verdict_comes_first_and_then_what_was_run(run: Run, report: str) -> None:
    places = [report.index(part) for part in ('class="verdict', html.escape(circumstances(run)), "<table", "<img")]
    assert places == sorted(places)


@pytest.mark.parametrize("count", [199, 200])
def test_the_tail_is_told_only_of_as_many_messages_as_the_table_asks_for(tmp_path: Path, count: int) -> None:
    messages = [message(1, 10.0 + n) | {"intended_s": n / 10} for n in range(count)]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}])
    told = str(questions.response_time(run))
    assert ("with lan: one message in twenty took longer than 199 ms" in told) == (count == 200)


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ((0, 20), "The tail is longest with wifi: at least one message in twenty was never answered."),
        ((0, 120), "took up to 10 ms with lan; with wifi at least half of them were never answered."),
        ((120, 120), "With every variant at least half of the messages were never answered."),
    ],
)
def test_what_was_never_answered_is_told_in_words(tmp_path: Path, lost: tuple[int, int], words: str) -> None:
    messages = [
        message(trial, 10.0 if n >= of else None, outcome="echoed" if n >= of else "lost") | {"intended_s": n / 10}
        for trial, of in enumerate(lost, 1)
        for n in range(220)
    ]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}, {"link": "wifi"}])
    told = str(questions.response_time(run))
    assert words in told
    assert not re.search("inf|forever|nan", told)


def test_the_speed_of_files_is_that_of_the_summary(tmp_path: Path) -> None:
    sent = {"trial": 1, "size_bytes": 1000, "outcome": "done"}
    rows = [sent | {"goodput_bps": bps, "disturbed": disturbed} for bps, disturbed in ((1e6, 0), (5e6, 1), (6e6, 1))]
    rows += [sent | {"outcome": "failed"}, sent | {"trial": 2, "outcome": "failed"}]
    run = write_run(tmp_path, {"messages": [message(1, 9.0)], "files": rows}, [{"link": "lan"}, {"link": "wifi"}])
    told = str(questions.files(run))
    assert "lan: 3 of 4 arrived, at a median of 1.00 Mbit/s." in told
    assert "wifi: 0 of 1 arrived." in told
    assert told.endswith("The speed is of those that the machine did not disturb.")
    assert "at a median of 5.00 Mbit/s" in str(questions.files(Run(run.path, with_disturbed=True)))


def test_what_was_lost_is_told_of_all_that_were_sent(tmp_path: Path) -> None:
    """The machine disturbs messages that are lost too; what it disturbed has no response times, but was sent."""
    disturbed = [message(1, None, outcome="lost") | {"disturbed": 1}] * 30
    messages = disturbed + [message(2, 10.0)] * 6
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}, {"link": "wifi"}])
    for each in (run, Run(run.path, with_disturbed=True)):
        assert "Of 36 messages 30 were lost." in str(questions.response_time(each))
        assert "lan: 30 of 30 lost" in str(questions.loss(each))
        assert "wifi: 0 of 6 lost" in str(questions.loss(each))
    assert "nan" not in str(questions.response_time(run))


def test_what_was_refused_and_disturbed_is_left_out_once(tmp_path: Path) -> None:
    refused = [message(1, None, outcome="refused")]
    disturbed = [refused[0] | {"disturbed": 1}]
    messages = refused * 5 + disturbed * 50 + [message(1, 10.0 + n) | {"intended_s": n / 10} for n in range(200)]
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}])
    assert "one message in twenty took longer than" in str(questions.response_time(run))
    assert page(run).count(">too few<") == 2, "p99 and p99.9"


def test_a_terminal_tells_no_percentile_of_too_few_messages(tmp_path: Path) -> None:
    few = [message(1, 10.0 + n) | {"intended_s": n / 10} for n in range(200)]
    run = write_run(tmp_path / "one", {"messages": few}, [{"link": "lan"}])
    assert "p95_ms" in shown(presentable(run, summarise(run)))
    assert "p99_ms" not in shown(presentable(run, summarise(run)))
    many = [message(2, 10.0) | {"id": n} for n in range(1_000)]
    run = write_run(tmp_path / "two", {"messages": few + many}, [{"link": "lan"}, {"link": "wifi"}])
    assert shown(presentable(run, summarise(run))).count("too few") == 1, "in the column that wifi has"


def test_a_refused_message_is_not_drawn_as_lost(tmp_path: Path) -> None:
    messages = [message(1, 10.0 + n) | {"intended_s": n / 10} for n in range(200)]
    messages += [message(1, None, outcome="refused") | {"intended_s": 3.0}] * 20
    run = write_run(tmp_path, {"messages": messages}, [{"link": "lan"}])
    assert [picture.alt for picture in percentile_table(run).pictures] == [
        "p50 of response time for each link",
        "p95 of response time for each link",
    ]
    with_refused = [picture.png for draw in (distribution, over_time) for picture in draw(run).pictures]
    answered = write_run(tmp_path / "answered", {"messages": messages[:200]}, [{"link": "lan"}])
    assert with_refused == [picture.png for draw in (distribution, over_time) for picture in draw(answered).pictures]


def test_no_curve_is_of_several_variants(tmp_path: Path) -> None:
    """However many keys are varied: the second colour has all of them but the first."""
    variants = [
        {"link": link, "connections": connections, "rooms": rooms}
        for link in ("lan", "wifi")
        for connections in ("single", "redundant")
        for rooms in ("1", "3")
    ]
    messages = [message(trial, 10.0 + trial) for trial in range(1, 9) for _ in range(30)]
    run = write_run(tmp_path, {"messages": messages}, variants)
    drawn = [
        (name, label, sorted(rows["trial"].unique()))
        for name, groups in plots._panels(run, run.measured("response_time_ms"))
        for label, rows, _, _ in groups
    ]
    labels = ["single, 1", "single, 3", "redundant, 1", "redundant, 3"]
    panels = [(link, label) for link in ("lan", "wifi") for label in labels]
    assert drawn == [(*panel, [trial]) for trial, panel in enumerate(panels, 1)]
    assert len(percentile_table(run).pictures) == 1


def test_a_closed_workload_is_told_as_such(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"messages": [message(1, 10.0)]}, [{"link": "lan"}])
    assert "1/s for each user who talks" in page(run)
    run.manifest.scenario["messages"] = {"think_time": "2s"}
    assert "who talks waits 2s after each answer (closed workload)" in circumstances(run)


@pytest.mark.parametrize(
    ("users", "counts", "words"),
    [
        (
            {"BroadcastUser": "2", "PrivateUser": "1"},
            [6, 24, 3],
            "6, then 24, then 3 users (BroadcastUser : PrivateUser = 2 : 1)",
        ),
        ({"BroadcastUser": 1}, [6, 6], "6 users (BroadcastUser)"),
        ({"BroadcastUser": 2, "PrivateUser": 1}, [3, "3"], "2 BroadcastUser, 1 PrivateUser"),
    ],
)
def test_as_many_users_are_told_as_there_were(
    tmp_path: Path, users: dict[str, object], counts: list[object], words: str
) -> None:
    """Of stages that say other numbers, the scenario's users are but the mix."""
    run = write_run(tmp_path, {"messages": [message(1, 10.0)]}, [{"link": "lan"}])
    run.manifest.scenario |= {"users": users, "stages": [{"users": count, "duration": "5s"} for count in counts]}
    run.manifest.scenario["messages"] = {"rate": "1/s", "ramp_to": "10/s"}
    assert f"; {words}; 1/s, 10/s at the end, for each user who talks;" in circumstances(run)


@pytest.mark.parametrize("key", ["messages.rate", "messages.ramp_to", "messages.think_time", "messages"])
def test_a_rate_that_is_varied_is_told_as_such(tmp_path: Path, key: str) -> None:
    run = write_run(tmp_path, {"messages": [message(1, 10.0)]}, [{key: "1/s"}])
    assert "a varied rate for each user who talks" in circumstances(run)


def test_stages_that_are_varied_say_neither_how_many_nor_how_long(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"messages": [message(1, 10.0)]}, [{"stages": "[{users: 3}]"}])
    assert " of varied length, state finished; varied users;" in circumstances(run)


def test_each_process_has_a_colour_of_its_own(tmp_path: Path) -> None:
    """Nine programs of others: those that used least are left out, ours never are."""
    names = ["load", "machine", "server", *(f"other: {n}" for n in range(9))]
    rows = [
        {"trial": 1, "time_s": float(s), "process": name, "cpu_percent": 1.0 + place}
        for s in range(3)
        for place, name in enumerate(names)
    ]
    run = write_run(tmp_path, {}, [{"link": "lan"}])
    pd.DataFrame(rows, columns=list(TABLES["machine"])).to_csv(run.path / "machine.csv", index=False)
    assert drawn_processes(run.table("machine")) == [
        "load",
        "machine",
        "server",
        *(f"other: {n}" for n in range(8, 3, -1)),
    ]


def test_a_run_that_lost_everything_and_recorded_little_has_a_report(tmp_path: Path) -> None:
    messages = [message(1, None, outcome="lost") | {"intended_s": n / 10} for n in range(40)]
    text = page(write_run(tmp_path, {"messages": messages}, [{"link": "lan"}]))
    assert "No message was answered after the warm-up." in text


def test_the_page_of_several_runs_has_all_of_them(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert main(["report", str(run.path), str(REFERENCE), "--output", str(file)]) == 0
    text = file.read_text()
    assert text.count('class="verdict') == 2
    assert "<td>lan single, reference</td>" in text
    assert "lan, made" in text
    assert f"report:  {file}" in capsys.readouterr().out


@needs_browser
def test_the_report_reads_on_a_screen_on_a_phone_and_on_paper(tmp_path: Path) -> None:
    """Nothing is asked of another machine, nothing is wider than the screen, each picture can be read out."""
    file = tmp_path / "report.html"
    file.write_text(page(Run(REFERENCE)))
    with browser() as screen:
        for width in (1280, 390):
            screen.resize(width)
            screen.open(file.as_uri())
            assert screen.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            assert screen.evaluate("[...document.images].every(i => i.naturalWidth && i.width <= innerWidth && i.alt)")
        screen.resize(717)  # A4 without its margins
        screen.call("Emulation.setEmulatedMedia", media="print")
        assert screen.evaluate("[...document.querySelectorAll('table')].every(t => t.scrollWidth <= innerWidth - 32)")
        assert all(asked.startswith(("file:", "data:")) for asked in screen.requested)

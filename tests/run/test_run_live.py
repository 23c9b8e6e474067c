"""The tabs of ours in Locust's web UI, looked at with a browser while a run goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from browser import browser, needs_browser
from run_helpers import LONG, children_named, refused

pytestmark = pytest.mark.realtime("runs")

#: The number of answered messages in the row whose name ends like this; 0 while there is none.
ANSWERED = (
    "(() => {{ const row = [...document.querySelectorAll('tr')].find(r => r.cells[0].textContent.endsWith('{}')); "
    "return row ? Number(row.cells[2].textContent) : 0 }})()"
)


@needs_browser
def test_the_live_tab_follows_a_run_from_trial_to_trial(tmp_path: Path) -> None:
    """The trials last until the page has shown what is looked for, then they are ended."""
    scenario = tmp_path / "s.yaml"
    scenario.write_text(LONG)
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--web", "--web-port", "0", "--no-report"]
    command += ["--repeat", "0", "--results", str(tmp_path / "results")]
    with browser() as page:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert run.stdout
            said = run.stdout.readline()
            assert said.startswith("live: http://127.0.0.1:")
            address = said.split()[1]
            own = address.partition("?")[0]
            page.open(address)
            so_far = ANSWERED.format("single: so far")
            first = page.until(so_far)
            assert page.until(f"{so_far} > {first} && {so_far}") > first
            stopping = f"fetch('{own}stop', {{method: 'POST'}}).then(answer => answer.status)"
            assert page.evaluate(stopping) == 403, "the scenario says when the test ends"
            for load in children_named(psutil.Process(run.pid), "locust"):
                load.send_signal(signal.SIGINT)
            # The next trial is followed on the same page, and the figures of this one stay.
            page.until(ANSWERED.format("redundant: so far"))
            assert page.until(ANSWERED.format("trial 1, single")) >= first
            page.open(address.replace("tab=chat", "tab=link"))
            assert page.until("[...document.querySelectorAll('td')].some(c => c.textContent == 'rtt_ms')")
            assert all(asked.startswith((own, "data:")) for asked in page.requested), page.requested
        finally:
            run.terminate()
            run.communicate(timeout=60)


def test_options_of_the_page_need_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--web-port goes with --web" in refused(capsys, "run", "demo", "--web-port", "1")
    assert "nothing to see" in refused(capsys, "run", "demo", "--web", "--clock", "virtual")

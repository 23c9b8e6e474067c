"""Real netem and the emulator do the same to packets: measured one after the other in virtual time."""

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from link_helpers import needs_patience, run_in_virtual_time

from loadtests.link.measure.calibrate import loss_window
from loadtests.link.measure.probes import ProbeStream
from loadtests.link.model.profile import Direction, GilbertElliott

#: A million packets through either backend take minutes of computing, which is all that this waits for.
pytestmark = [pytest.mark.timeout(1800), needs_patience]

BACKENDS = ("netem", "emulator")
Figures = dict[str, dict[str, float]]

BURSTS = GilbertElliott(0.01, 0.25)
#: netem draws anew in each kernel: chance alone moves a figure out of its window about once in a million runs.
ALPHA, STANDARD_ERRORS = 1e-6, 5


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """Backend → link → figure → value; each backend in a machine of its own, side by side."""
    with ThreadPoolExecutor() as pool:
        tasks = {backend: pool.submit(_measure, backend, tmp_path_factory.mktemp(backend)) for backend in BACKENDS}
        return {backend: task.result() for backend, task in tasks.items()}


def _measure(backend: str, folder: Path) -> Figures:
    command = ["env", "PYTHONPATH=.", sys.executable, str(Path(__file__).with_name("measure.py")), backend]
    code, output = run_in_virtual_time(command, folder, timeout_s=1700)
    assert code == 0, output
    found: Figures = json.loads(output)
    print(backend, json.dumps(found, indent=1))
    return found


def test_delay_and_jitter(measured: dict[str, Figures]) -> None:
    """Normal jitter of 4 ms around 20 ms: the medians within 0.5 %, the interquartile ranges as chance allows."""
    netem, emulator = measured["netem"]["normal"], measured["emulator"]["normal"]
    assert emulator["median_ms"] == pytest.approx(netem["median_ms"], rel=0.005)
    # The standard error of a normal sample's interquartile range is 1.17 of it / sqrt(n) (Stuart & Ord, volume 1).
    standard_error = 1.17 * math.sqrt(2 / netem["probes"])
    assert emulator["spread_ms"] == pytest.approx(netem["spread_ms"], rel=STANDARD_ERRORS * standard_error)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "direction"),
    [("random", Direction(loss=0.02)), ("bursts", Direction(loss=GilbertElliott(0.01, 0.25)))],
)
def test_loss(name: str, direction: Direction, backend: str, measured: dict[str, Figures]) -> None:
    """Each backend's loss is inside the interval of the same model."""
    figures = measured[backend][name]
    low, high = loss_window(direction, ProbeStream("primary", "up", int(figures["packets"]), 0, 0), ALPHA)
    assert low <= figures["loss"] <= high


@pytest.mark.parametrize("backend", BACKENDS)
def test_bursts_are_as_long(backend: str, measured: dict[str, Figures]) -> None:
    """The length of a burst is geometric with parameter r: mean 1/r, standard deviation sqrt(1 - r)/r."""
    figures = measured[backend]["bursts"]
    standard_error = math.sqrt((1 - BURSTS.r) / figures["bursts"]) / BURSTS.r
    assert figures["burst"] == pytest.approx(1 / BURSTS.r, abs=STANDARD_ERRORS * standard_error)


def test_goodput(measured: dict[str, Figures]) -> None:
    """A bulk transfer over 5 Mbit/s with a queue of 50 ms, cubic on both."""
    ratio = measured["emulator"]["narrow"]["goodput_bps"] / measured["netem"]["narrow"]["goodput_bps"]
    assert ratio == pytest.approx(1, rel=0.005)

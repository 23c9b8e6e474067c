"""`run.json`, typed: what a run was, and what became of each of its trials."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from chat.words import NO_TEXT, brief, reason_of, visible
from loadtests.errors import HarnessError
from loadtests.link.backends.backend import BackendName, LinkStats
from loadtests.samples import SCHEMA_VERSION
from loadtests.scenario.scenario import Clock

_NAME = "run.json"
Stamps = Literal["wire", "kernel"]


class Start(msgspec.Struct, frozen=True):
    """When the load of a trial began, on this machine's two clocks."""

    monotonic_ns: int
    epoch_ns: int


class LoadProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that made load, and when it began to."""

    #: Its number; None if there is but one.
    worker: int | None
    host: str
    pid: int
    #: Names its CLOCK_MONOTONIC: times of processes with the same name may be compared.
    clock: str
    monotonic_ns: int
    epoch_ns: int


class Watched(msgspec.Struct):
    """What is known about the packets of a trial."""

    #: Whether the links flip bits, so that packets were seen that the receiver then discarded.
    corrupts: bool
    #: How many are kept, and for how many there was no room; None if nobody could say.
    packets: int | None = None
    dropped: int | None = None
    #: CPU time of the process that kept them, its start included.
    cpu_s: float | None = None
    #: Why there are none; empty if there are.
    problem: str = ""

    @property
    def doubt(self) -> str:
        """Which rows have no time of their own packet, and why; empty if all have."""
        if self.problem:
            return f"rows have the stamps of their reads: {self.problem}"
        return f"{self.dropped} packets were not seen: some rows have the stamp of their read" if self.dropped else ""


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine did besides the trial."""

    #: The share of all cores' time in which they ran nothing of ours, while there was load.
    stalled_share: float = 0.0
    #: The longest such time.
    longest_stall_ms: float = 0.0
    #: The share that the host of a virtual machine withheld, as far as it says so.
    steal_share: float = 0.0
    #: The busiest processes that were not ours: name → CPU, 100 is one core.
    others_percent: dict[str, float] = {}
    #: The share of the messages after the warm-up that are left out.
    disturbed_share: float = 0.0
    #: Whether stalls were measured at real-time priority; otherwise they may be our own doing, and nothing is left out.
    is_certain: bool = True


class TrialRecord(msgspec.Struct, kw_only=True):
    """What is known of a trial that has begun."""

    #: Place in the order of running, from 1; `trial` in the tables.
    number: int
    #: The values that set its variant apart, in one line.
    name: str
    repetition: int = 1
    #: Dotted key → value.
    variant: dict[str, str] = {}
    seed: int = 0
    #: `running`, `finished`, `rejected`, `interrupted`, `failed`, or a sentence about what cut it short.
    state: str = "running"
    #: Why it was rejected.
    reason: str = ""
    #: None if its load never began.
    start: Start | None = None
    #: Path → link, as it was built.
    links: dict[str, dict[str, Any]] = {}
    #: Who made the links; `none` also if there are none.
    backend: str = "none"
    #: Of TCP at both ends; None if the server is elsewhere.
    congestion_control: str | None = None
    #: Path → address of the server.
    addresses: dict[str, str] = {}
    #: What each direction of each path carried under load.
    link_counters: list[LinkStats] = []
    #: How far the wall clock was stepped meanwhile.
    clock_step_ms: float = 0.0
    processes: list[LoadProcess] = []
    #: Packets in the client's namespace; None without links of our own.
    wire: Watched | None = None
    machine: MachineFacts = MachineFacts()


class Manifest(msgspec.Struct, kw_only=True):
    """A run: what was asked for, where it ran, and its trials in the order in which they began."""

    schema_version: int = SCHEMA_VERSION
    scenario_file: str = ""
    #: The scenario as it was written, with what the command line set.
    scenario: dict[str, Any] = {}
    #: Options of `chatlab run` that say what it was, `--set` among them; empty if an older version made it.
    options: list[str] = []
    started_utc: str = ""
    #: `running`, `finished`, `interrupted`, `failed: …`, or a sentence about what cut it short.
    state: str = "running"
    #: What was asked for; each trial says what it got.
    backend: BackendName = "auto"
    #: Whose times rows have at best (`--stamps`).
    stamps: Stamps = "wire"
    #: Locust's own, about its processes.
    load_options: list[str] = []
    #: `virtual`: each trial ran in a machine whose clock stands still while anybody computes.
    clock: Clock = "real"
    #: Of a virtual run, SHA-256 of what its rows follow from (`programs`, `kernel`, `scenario`), and of each table.
    fingerprint: dict[str, str] = {}
    digests: dict[str, str] = {}
    #: The network interface that leads to a server elsewhere, if the link is there.
    interface: str | None = None
    versions: dict[str, str] = {}
    kernel: str = ""
    cores: int = 1
    #: Varied key → its values in the scenario's order.
    labels: dict[str, list[str]] = {}
    trials: list[TrialRecord] = []

    @classmethod
    def read(cls, folder: Path, oldest: int = SCHEMA_VERSION) -> Self:
        """That of the run in `folder`, with tables of version `oldest` or later.

        Raises HarnessError: there is no run, or it is one of another version of chatlab.
        """
        try:
            text = (folder / _NAME).read_bytes()
        except FileNotFoundError:
            raise HarnessError(f"{folder}: not a run directory: it has no {_NAME}") from None
        except OSError as error:
            raise HarnessError(f"{folder / _NAME}: cannot be read: {reason_of(error)}") from None
        try:
            plain = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HarnessError(f"{folder / _NAME}: damaged, or not chatlab's: {error}") from None
        version = plain.get("schema_version")
        if not isinstance(version, int) or not oldest <= version <= SCHEMA_VERSION:
            allowed = f"{oldest} to {SCHEMA_VERSION}" if oldest < SCHEMA_VERSION else f"and writes {SCHEMA_VERSION}"
            raise HarnessError(
                f"{folder}: its tables have schema version {brief(str(version))}, this chatlab reads {allowed}; "
                "use the version that made them, or run the scenario again"
            )
        try:
            manifest = msgspec.convert(_harmless(plain), cls)
            manifest.check()
        except (msgspec.ValidationError, HarnessError) as error:
            raise HarnessError(f"{folder / _NAME}: {brief(str(error))}") from None
        return manifest

    @property
    def varied(self) -> list[str]:
        """The dotted keys that the scenario varied, in its order."""
        vary = self.scenario.get("vary", {})
        return [*vary] if isinstance(vary, dict) else []

    def check(self) -> None:
        """Raises HarnessError: what it says of its trials does not fit together."""
        numbers = Counter(trial.number for trial in self.trials)
        for trial in self.trials:
            if numbers[trial.number] > 1:
                raise HarnessError(f"there are {numbers[trial.number]} trials {trial.number}")
            for key in (*self.varied, *self.labels):
                if key not in trial.variant:
                    raise HarnessError(f"trial {trial.number} does not say its {key}, which the scenario varied")

    def write(self, folder: Path) -> None:
        """Write it whole: a reader never sees half of it."""
        draft = folder / f"{_NAME}.new"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        draft.rename(folder / _NAME)


def _harmless(value: Any) -> Any:
    """The same, with control characters in all texts shown as escapes: a run may be a stranger's, and is printed."""
    match value:
        case str():
            return NO_TEXT.sub(lambda found: visible(found[0]), value)
        case dict():
            return {_harmless(key): _harmless(item) for key, item in value.items()}
        case list():
            return [_harmless(item) for item in value]
        case _:
            return value

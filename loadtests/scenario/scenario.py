"""Scenario files: YAML → typed :class:`Scenario`; errors name file, line, key and what is allowed."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import msgspec

from chat.arguments import parse_host_port
from chat.protocol.limits import Limits
from chat.server.rooms import MAX_ROOMS
from loadtests.config.units import ByteCount, PerSecond, Ratio, Seconds
from loadtests.config.yamlfile import Document, KeyPath, Misfit
from loadtests.data import SCENARIOS
from loadtests.errors import ConfigError
from loadtests.link.linkfile import anchored, load_profile, profile_at
from loadtests.link.model.profile import PATHS, LinkProfile
from loadtests.link.model.vocabulary import Entry
from loadtests.samples import USERS_PER_WORKER
from loadtests.scenario.thresholds import Threshold, contradiction

DEFAULT_LINK = "lan"
UserClass = Literal["BroadcastUser", "PrivateUser", "ListeningUser", "FileUser"]
#: Those that say something.
TALKING: tuple[UserClass, ...] = ("BroadcastUser", "PrivateUser")
Count = Annotated[int, msgspec.Meta(ge=1)]
#: As many as one load process numbers.
UserCount = Annotated[int, msgspec.Meta(ge=1, le=USERS_PER_WORKER)]
Repetitions = Annotated[int, msgspec.Meta(ge=1, le=1000)]
#: As many as a server opens.
RoomCount = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROOMS)]


def label(value: Any) -> str:
    """A varied value as tables, figures and thresholds show it."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


class Messages(msgspec.Struct, frozen=True):
    """What each user sends; an open workload, in which nobody waits for a reply, unless `think_time` is said."""

    #: Messages per second and user.
    rate: PerSecond = PerSecond(1)
    #: `poisson`: exponential gaps, independent users; `constant`: equal gaps, each user with a phase of its own.
    arrival: Literal["poisson", "constant"] = "poisson"
    #: Length of the text of a message.
    size: ByteCount = ByteCount(120)
    #: Messages in one burst, all due at once; the mean rate stays.
    burst: Count = 1
    #: The rate at the end of the load, reached in a straight line; by default the rate stays as it is.
    ramp_to: PerSecond | None = None
    #: A closed workload instead: each user waits for the answer, thinks for this long, and sends the next message.
    think_time: Seconds | None = None
    #: Share of messages whose deliveries become rows of `deliveries.csv`; all deliveries are counted.
    delivery_sample: Ratio = Ratio(1)

    def __post_init__(self) -> None:
        if self.rate <= 0 or (self.ramp_to is not None and self.ramp_to <= 0):
            raise ValueError("rate and ramp_to must be above 0/s")
        if not (longest := Limits().text_bytes) >= self.size >= 1:
            raise ValueError(f"size must be from 1B to {longest}B, the texts that a server accepts")
        if self.think_time is not None and (self.burst > 1 or self.ramp_to):
            raise ValueError("think_time makes a closed workload, which has no schedule: leave out burst and ramp_to")


#: What arrives lies in the folder for temporary files until it is verified.
_LONGEST_FILE_MIB = 1024


class Files(msgspec.Struct, frozen=True):
    """What each `FileUser` sends to random others."""

    #: Length of a file.
    size: ByteCount = ByteCount(1 << 20)
    #: Time between the beginnings of two files of a user, each with a phase of its own.
    every: Seconds = Seconds(10)

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError("every must be above 0s")
        if self.size > _LONGEST_FILE_MIB << 20:
            raise ValueError(f"size must be at most {_LONGEST_FILE_MIB}MiB")


class Stage(msgspec.Struct, frozen=True):
    """One step of the load shape: this many users for this long."""

    users: UserCount
    duration: Seconds
    #: Users that are started (or stopped) per second until `users` is reached; all at once by default.
    spawn_rate: PerSecond = PerSecond(1000)

    def __post_init__(self) -> None:
        if self.duration < 1 or self.spawn_rate <= 0:
            raise ValueError("duration must be at least 1s and spawn_rate above 0/s")


class HostPort(str):
    """`HOST:PORT` of a chat server that already runs, or `embedded` for one that each trial starts for itself."""

    __slots__ = ()

    @classmethod
    def from_yaml(cls, value: Any) -> Self:
        """Raises ValueError: neither `embedded` nor HOST:PORT."""
        if value != "embedded":
            try:
                parse_host_port(str(value))
            except ValueError:
                raise ValueError(f"expected 'embedded' or HOST:PORT, got {value!r}") from None
        return cls(value)

    @property
    def is_embedded(self) -> bool:
        return self == "embedded"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; not of an embedded one."""
        return parse_host_port(self)


Clock = Literal["real", "virtual"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)


class Scenario(msgspec.Struct, frozen=True):
    """What one trial does; a file may describe many by `vary` (see `loadtests.scenario.matrix`)."""

    description: str = ""
    #: A name in `scenarios/links/`, the path of such a file, the block itself, or one of these for each path.
    link: str | dict[str, Any] = DEFAULT_LINK
    #: How each client uses its connections.
    connections: Literal["single", "standby", "redundant"] = "single"
    #: TCP's congestion control at both ends; machines differ in their default, which would make results differ too.
    congestion: Literal["cubic", "reno", "bbr"] = "cubic"
    #: Private connections. An embedded server gets a certificate of its own; one elsewhere must have one that the
    #: system's authorities vouch for (OpenSSL's SSL_CERT_FILE names others).
    tls: bool = False
    #: User class → number of users of that class; with stages, its share of theirs.
    users: dict[str, UserCount] = msgspec.field(default_factory=lambda: {"BroadcastUser": 10})
    messages: Messages = msgspec.field(default_factory=Messages)
    files: Files = msgspec.field(default_factory=Files)
    #: Users are spread over so many rooms in turn and speak to everyone in their own; with one, all are in the lobby.
    rooms: RoomCount = 1
    #: The load shape; without it all users stay for 12 seconds.
    stages: list[Stage] = msgspec.field(default_factory=list)
    #: The first part of each trial, which statistics leave out.
    warmup: Seconds = Seconds(2)
    repetitions: Repetitions = 1
    #: How often at most a trial that the machine disturbed is run again.
    repeat: Annotated[int, msgspec.Meta(ge=0, le=100)] = 2
    #: Everything random (order of trials, schedules, link effects) follows from it.
    seed: int = 1
    #: Dotted key → values; each combination is one variant.
    vary: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    server: HostPort = HostPort("embedded")
    #: `virtual`: each trial in a machine whose clock no busy computer can disturb (`chatlab clock build` first).
    clock: Clock = "real"
    #: What each variant's summary must keep.
    thresholds: list[Threshold] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.users:
            raise Misfit("users", "expected at least one user class")
        for threshold in self.thresholds:
            for key, wanted in threshold.where.items():
                if wanted not in [label(value) for value in self.vary.get(key, ())]:
                    raise Misfit("thresholds", f"{threshold.text!r}: no variant has {key}={wanted}")
            if self.clock == "virtual" and threshold.column == "count":
                raise Misfit(
                    "thresholds",
                    f"{threshold.text!r}: virtual time tells no capacity, since computing takes none there; "
                    "leave it out, or run in real time",
                )
        if self.tls and self.clock == "virtual":
            raise Misfit(
                "tls", "needs the real clock: each run has new keys and certificates, so it never repeats to the byte"
            )
        if found := contradiction(self.thresholds):
            raise Misfit("thresholds", f"{found[0].text!r} and {found[1].text!r} contradict each other")
        if self.warmup >= self.duration_s:
            raise Misfit("warmup", f"{self.warmup:g} s must be shorter than the stages ({self.duration_s:g} s)")

    @property
    def shape(self) -> list[Stage]:
        return self.stages or [Stage(users=sum(self.users.values()), duration=Seconds(12))]

    @property
    def duration_s(self) -> float:
        """How long the load lasts, in seconds."""
        return sum(stage.duration for stage in self.shape)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that the clients use."""
        return PATHS[:1] if self.connections == "single" else PATHS


def read_document(scenario: str) -> Document:
    """The document of a scenario: the path of a file, or a name in `scenarios/`.

    Raises ConfigError: there is no such file, or it is not YAML.
    """
    path = Path(scenario)
    named = SCENARIOS / f"{scenario}.yaml"
    if not os.path.isfile(path) and path.suffix == "" and path.name == scenario:
        if not os.path.isfile(named):
            known = ", ".join(sorted(file.stem for file in SCENARIOS.glob("*.yaml")))
            raise ConfigError(f"{scenario}: no such scenario; allowed: the path of a file, or one of: {known}")
        path = named
    return anchored(Document.read(path), path.parent)


def decode(document: Document) -> tuple[Scenario, dict[str, LinkProfile]]:
    """The scenario, and the link of each of its paths; raises ConfigError at the first value that is wrong."""
    scenario = document.convert(Scenario)
    for name in scenario.users:
        try:
            msgspec.convert(name, UserClass)
        except msgspec.ValidationError:
            allowed = ", ".join(get_args(UserClass))
            raise document.error(("users", name), f"unknown user class; allowed: {allowed}") from None
    if "FileUser" in scenario.users and all(stage.users < 2 for stage in scenario.shape):
        raise document.error(("users", "FileUser"), "nobody is there to take the files: allowed with 2 users or more")
    links = _links(document, scenario)
    for path in links:
        place: KeyPath = ("link", path) if ("link", path, "timeline") in document.origins else ("link",)
        if (*place, "timeline") not in document.origins:
            continue
        # An outage or a ramp may go on beyond the end; what begins there is a mistake.
        entries = document.convert(list[Entry], (*place, "timeline"))
        late_s = [entry.at for entry in entries if entry.at >= scenario.duration_s]
        if late_s:
            raise document.error(
                (*place, "timeline"),
                f"nothing happens at {late_s[0]:g} s: the load ends after {scenario.duration_s:g} s",
            )
    return scenario, links


def load_of(document: Document) -> dict[str, Any]:
    """What concerns the load processes, in plain values: no link, nothing varied."""
    return {
        key: value
        for key, value in document.data.items()
        if key not in ("link", "server", "vary", "thresholds", "repeat")
    }


def _links(document: Document, scenario: Scenario) -> dict[str, LinkProfile]:
    """Path → link, for the paths that the clients use; before a server that we do not start, one if it is said."""
    if not scenario.server.is_embedded:
        if "link" not in document.data:
            return {}
        if isinstance(scenario.link, dict) and set(PATHS) & set(scenario.link):
            raise document.error(
                ("link",), "there is one way to a server elsewhere: give one link, or leave out server"
            )
        return {"primary": profile_at(document, ("link",))}
    if "link" not in document.data:
        return dict.fromkeys(scenario.paths, load_profile(DEFAULT_LINK))
    if not isinstance(scenario.link, dict) or not set(PATHS) & set(scenario.link):
        return dict.fromkeys(scenario.paths, profile_at(document, ("link",)))
    if set(scenario.link) != set(PATHS):
        raise document.error(("link",), f"one link for all paths, or one for each of: {', '.join(PATHS)}")
    return {path: profile_at(document, ("link", path)) for path in scenario.paths}

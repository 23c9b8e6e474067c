"""`python -m chat serve|connect …`, the same as `chat-server …` and `chat-client …`."""

import argparse
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from chat import arguments, records
from chat.net.loop import Loop
from chat.protocol import names
from chat.protocol.errors import ChatError
from chat.protocol.fields import LONGEST_ABSENCE_S
from chat.protocol.limits import PUBLIC_LIMITS, Limits
from chat.server.journal import Journal, JournalError
from chat.server.logs import log_to_stderr
from chat.server.metrics import MetricsPort, TurnTimes, metrics_of, sentence
from chat.server.monitor import TcpMonitor
from chat.server.rooms import Rooms
from chat.server.server import GRACE_S, ChatServer
from chat.words import count, reason_of

log = logging.getLogger("chat.server")

#: How long a server that is stopped is thought to be away: as long as a service manager takes to start it again.
BACK_IN_S = 1.0

if TYPE_CHECKING:
    from ssl import SSLContext


def serve() -> None:
    """The command `chat-server`."""
    parser = _server_parser()
    options = parser.parse_args()
    if options.tls_key and not options.tls_cert:
        parser.error("--tls-key needs the certificate that it belongs to: --tls-cert FILE")
    if options.check:
        if not options.journal:
            parser.error("--check looks at a journal: say which, with --journal FILE")
        sys.exit(_check(options.journal))
    log_to_stderr(options.log_format)
    _raise_descriptor_limit()
    names.load()
    turns = TurnTimes() if options.metrics is not None else None
    loop = Loop(turns)
    journal = None
    try:
        journal = Journal(options.journal) if options.journal else None
        server = ChatServer(
            loop,
            options.host,
            options.port,
            limits=Limits() if options.no_limits else PUBLIC_LIMITS,
            congestion=options.congestion,
            grace_s=options.grace,
            slow=options.slow,
            journal=journal,
            password=options.password or "",
            tls=_tls(options),
        )
        metrics = None if turns is None else MetricsPort(loop, server, options.metrics, turns)
    except ChatError as error:
        sys.exit(_complain("chat-server", error))  # which closes a journal, too
    # Before anybody is told that it listens, and may stop it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(loop.stop))
    signal.signal(
        signal.SIGUSR1,
        lambda *_: loop.call_soon_threadsafe(lambda: log.info("statistics: %s", sentence(metrics_of(server)))),
    )
    with contextlib.ExitStack() as files:
        if options.tcp_info:
            try:
                file = open(options.tcp_info, "w", newline="", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                sys.exit(_complain("chat-server", f"Cannot write {options.tcp_info}: {reason_of(error)}."))
            files.callback(records.close, file)
            TcpMonitor(loop, server, file)
        try:
            if options.log_format == "json":
                log.info("listening on %s:%d", *server.address)
            else:
                print("listening on {}:{}".format(*server.address), file=sys.stderr, flush=True)
            if metrics is not None:
                log.info("metrics are at http://127.0.0.1:%d/metrics", metrics.port)
            _run(loop, server, options.back_in)
            if metrics is not None:
                metrics.close()
            loop.close()
            if journal is not None:
                journal.close()
        except JournalError as error:
            sys.exit(_complain("chat-server", error))


def _server_parser() -> argparse.ArgumentParser:
    parser = arguments.parser("chat-server", "Serve a chat.")
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=arguments.port, default=5000, help="0 lets the system choose (default: %(default)s)"
    )
    parser.add_argument("--congestion", metavar="NAME", help="TCP congestion control, such as cubic or bbr")
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=arguments.seconds,
        default=GRACE_S,
        help="how long a session whose connections broke is kept for its client to come back (default: %(default)g)",
    )
    parser.add_argument(
        "--slow",
        choices=("skip", "close"),
        default="skip",
        help="what becomes of readers too slow for the log: they skip ahead and are told, or are closed "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--tcp-info", metavar="FILE.csv", type=arguments.file, help="record each connection's TCP_INFO every second"
    )
    parser.add_argument(
        "--journal",
        metavar="FILE",
        type=arguments.file,
        help="keep what is said in the rooms in this file, so that a restart loses nothing",
    )
    parser.add_argument(
        "--back-in",
        metavar="SECONDS",
        type=_back_in,
        default=BACK_IN_S,
        help="what clients are told when the server is stopped (SIGTERM, Ctrl-C): after about how long to come back, "
        "or `never`, which ends their sessions (default: %(default)g)",
    )
    parser.add_argument(
        "--no-limits",
        action="store_true",
        help="for load tests among friends; without it, "
        f"{PUBLIC_LIMITS.cost_per_s} units of work a second for each session, and {PUBLIC_LIMITS.cost_burst} saved up "
        "(a message costs 1, and 1 for each KiB and each 50 who hear it); who has none left waits. "
        f"{PUBLIC_LIMITS.connections} connections, {PUBLIC_LIMITS.connections_per_address} from one address",
    )
    arguments.add_password_file(parser, "let in only those who know the password in its first line")
    parser.add_argument(
        "--tls-cert",
        metavar="FILE",
        type=arguments.file,
        help="speak TLS only, with this certificate (PEM, with its chain)",
    )
    parser.add_argument(
        "--tls-key", metavar="FILE", type=arguments.file, help="its private key, if that is not in the same file"
    )
    parser.add_argument(
        "--metrics", metavar="PORT", type=arguments.port, help="answer GET /metrics for Prometheus on 127.0.0.1"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="what the log looks like (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="only say whether the journal adds up, and exit")
    return parser


def _tls(options: argparse.Namespace) -> "SSLContext | None":
    """The server's certificate, if there is one."""
    if options.tls_cert is None:
        return None
    from chat.net.tls import server_context

    return server_context(options.tls_cert, options.tls_key)


def _check(path: str) -> int:
    """Say whether a journal adds up; the exit code."""
    if not os.path.exists(path):
        return _complain("chat-server", f"There is no journal {path}.")
    rooms = Rooms(name_chars=Limits().nick_chars)
    try:
        with contextlib.closing(Journal(path, may_begin=False)) as journal:
            journal.restore(rooms)
    except JournalError as error:
        return _complain("chat-server", error)
    lines = sum(room.log.last_seq + 1 - room.log.first_seq for room in rooms)
    print(f"The journal {path} adds up: {count(lines, 'line')} in {count(len(list(rooms)), 'room')}.")
    return 0


def _back_in(text: str) -> float | None:
    if text == "never":
        return None
    if (value := arguments.seconds(text)) <= LONGEST_ABSENCE_S:
        return value
    raise argparse.ArgumentTypeError(f"expected a day at most ({LONGEST_ABSENCE_S} s), or `never`, got {text!r}")


def _run(loop: Loop, server: ChatServer, back_in_s: float | None) -> None:
    """Until a signal; then everybody is told, and what is still on its way is sent."""
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # What comes later is freed without the collector, whose search of all that lives would stop a full server for long.
    gc.set_threshold(*gc.get_threshold()[:2], 1_000)
    loop.run()
    server.close("The server is shutting down." if back_in_s is None else "The server is restarting.", back_in_s)
    while not server.idle:
        loop.run_once()


def connect() -> None:
    """The command `chat-client`."""
    from chat.console.interactive import main  # prompt_toolkit takes a third of a second that the server need not spend

    sys.exit(main())


def main() -> None:
    """Dispatch on the first argument."""
    commands = {"serve": serve, "connect": connect}
    command = commands.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is None:
        sys.exit("usage: python -m chat serve|connect [options]; each has --help")
    del sys.argv[1]
    command()


def _complain(program: str, error: object) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return 2


def _raise_descriptor_limit() -> None:
    """Every connection is a descriptor, and the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()

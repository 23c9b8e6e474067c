"""`make fuzz MINUTES=60`: look for inputs that break something, each target for its share of the time.

With atheris (`pip install atheris`), which follows what code an input reaches; without it, with hypothesis. An input
that breaks something is shown, and kept in `tests/fuzz/corpus/TARGET/` so that `make test` tries it from then on.
"""

import argparse
import importlib.util
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from inputs import CORPUS, WORDS, inputs, seeds
from mutate import mutated
from targets import TARGETS

#: Far too much CPU time for one input. (Not wall time, of which a busy machine takes any.)
_MOST_CPU_S = 20.0


def with_hypothesis(target: str, seconds: float) -> None:
    """Rounds of examples, each with a seed of its own, until the time is over; raises what an input breaks."""
    run, end_s, rounds, tried = _keeping(target, TARGETS[target]), time.monotonic() + seconds, 0, 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        if time.monotonic() < end_s:
            run(data)

    options = settings(
        max_examples=2_000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    while time.monotonic() < end_s:
        rounds += 1
        seed(time.time_ns())(options(given(inputs(target))(one)))()
    print(f"{target}: {tried} inputs, nothing found")


def with_atheris(target: str, seconds: float) -> None:
    """Until the time is over, from the corpus and from what it grows into; does not come back."""
    import atheris

    with atheris.instrument_imports(include=["chat", "loadtests", "yaml"]):
        for name in [name for name in sys.modules if name.split(".")[0] in ("chat", "loadtests", "yaml", "targets")]:
            del sys.modules[name]
        from targets import TARGETS as INSTRUMENTED
    (CORPUS / target).mkdir(exist_ok=True)
    words = CORPUS.parent / ".words" / target
    words.parent.mkdir(exist_ok=True)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS[target] if len(word) < 64))
    grown = CORPUS.parent / ".grown" / target
    grown.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (grown / f"seed-{number}").write_bytes(data)

    def changed(data: bytes, max_size: int, number: int) -> bytes:
        random = Random(number)
        if random.random() < 0.2:
            return bytes(atheris.Mutate(data, max_size))
        return mutated(bytes(data), WORDS[target], random)[:max_size]

    options = [
        f"-max_total_time={int(seconds)}",
        f"-dict={words}",
        "-max_len=16384",
        "-len_control=0",
        "-timeout=600",
        "-print_final_stats=1",
    ]
    run = _keeping(target, INSTRUMENTED[target])
    atheris.Setup([sys.argv[0], *options, str(grown), str(CORPUS / target)], run, custom_mutator=changed)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _keeping(target: str, run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target; an input that breaks it is kept on disk, of those that hypothesis tries one after the other the last,
    which is the smallest."""
    file = CORPUS / target / f"found-{time.strftime('%Y%m%d%H%M%S')}"

    def give_up(*_: object) -> None:
        raise RuntimeError(f"more than {_MOST_CPU_S:g} s of CPU for one input")

    signal.signal(signal.SIGPROF, give_up)

    def kept(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)
        try:
            run(bytes(data))
        except Exception:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    return kept


def main() -> int:
    """One process for each target; exit code 1 if one of them found something."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description="Look for inputs that break something.")
    parser.add_argument("--minutes", type=float, default=10, help="in all (default: %(default)g)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be said again")
    parser.add_argument("--here", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.target or list(TARGETS)
    seconds = options.minutes * 60 / len(chosen)
    if options.here:
        run = with_atheris if importlib.util.find_spec("atheris") else with_hypothesis
        try:
            run(options.here, options.minutes * 60)
        except Exception:
            traceback.print_exc()
            return 1
        return 0
    failed = []
    for target in chosen:
        command = [sys.executable, __file__, "--here", target, "--minutes", str(seconds / 60)]
        if subprocess.run(command).returncode:
            failed.append(target)
    print(f"found something in: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

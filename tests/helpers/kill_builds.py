"""Kill builds at random moments, from a process that has all imported: `python kill_builds.py MODEL FOLDER KILLS`.

Each build runs in a fork. They are killed in turn from here after a random time, by themselves before a random one of
their file-system calls, and before a random one of their renames, which are few and decide. What a build left is
written to standard output, one JSON line each, and the last line is of a build that was let run to its end. A
generation is a key of its own: when its bundle is in place the next one is built over it.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

from sdtrt import engines
from sdtrt.builder import build as builder
from sdtrt.bundle.bundle import Bundle
from sdtrt.bundle.staging import Staging
from sdtrt.errors import SdtrtError

CALLS = ("open", "os.", "shutil.")  # audit events of what touches a file
RENAMES = ("os.rename",)
PROFILE = "B=1,H=64,W=64"


def build(model: Path, out: Path, generation: int, log: Path) -> None:
    """Build with one of two keys, and write down which components were begun."""
    fake = engines.load("fake")

    def begin(source, options, folder):
        with log.open("a") as file:
            file.write(source.spec.name + "\n")
        type(fake).build(fake, source, options, folder)

    fake.build = begin
    builder.build(model, out, backend="fake", profile_runs=1, profiles=[PROFILE], opset=20 + generation % 2)


def fork(act) -> int:
    """Run `act` in a child and return its process id; the child exits with 1 when it raises."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    finally:
        os._exit(code)


def dying(act, events: tuple[str, ...], last: int) -> None:
    """Do `act`, and kill this process before audit event number `last` of those whose names begin with `events`."""
    seen = itertools.count(1)

    def hook(event, arguments):
        if event.startswith(events) and next(seen) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    act()


def first(model: Path, folder: Path) -> tuple[float, dict[tuple[str, ...], int]]:
    """Build what the next one replaces; its seconds, and how many calls and renames it made."""

    def act() -> None:
        seen = []
        sys.addaudithook(lambda event, arguments: seen.append(event))
        build(model, folder / "bundle", 0, folder / "begun.txt")
        counts = [sum(event.startswith(events) for event in list(seen)) for events in (CALLS, RENAMES)]
        (folder / "counts.json").write_text(json.dumps(counts))

    started = time.perf_counter()
    os.waitpid(fork(act), 0)
    seconds = time.perf_counter() - started
    return seconds, dict(zip((CALLS, RENAMES), json.loads((folder / "counts.json").read_text()), strict=True))


def state(out: Path) -> dict:
    """What can be seen from outside: the bundle, whole, and what the next build can take over."""
    bundle = Bundle.open(out)
    for name in bundle.manifest.components:
        bundle.check_files(name)
    opsets = {c.key["opset"] for c in bundle.manifest.components.values()}
    finished = {n: c.key["opset"] for n, c in Staging(out).finished().items()}
    return {"bundle": sorted(opsets), "components": sorted(bundle.manifest.components), "finished": finished}


def main(model: Path, folder: Path, kills: int) -> None:
    """Kill `kills` builds, and let one more run."""
    torch.set_num_threads(1)
    gc.freeze()  # what is loaded is never looked at again: forks share it
    out, log = folder / "bundle", folder / "begun.txt"
    seconds, counts = first(model, folder)
    chance, generation, killed = random.Random(0), 1, 0  # noqa: S311
    while killed <= kills:
        log.write_text("")
        how = (None, CALLS, RENAMES)[killed % 3] if killed < kills else ()
        last = chance.randint(1, counts[how]) if how else 0
        pid = fork(partial(dying, partial(build, model, out, generation, log), how or (), last))
        if how is None:
            time.sleep(chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        died = os.WIFSIGNALED(status)
        facts = {"killed": died, "code": 0 if died else os.WEXITSTATUS(status), "asked": str(20 + generation % 2)}
        try:
            facts |= state(out)
        except SdtrtError as exc:
            facts["error"] = str(exc)
        print(json.dumps(facts | {"begun": log.read_text().split()}), flush=True)  # noqa: T201
        killed += died or how == ()
        generation += facts.get("bundle") == [facts["asked"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

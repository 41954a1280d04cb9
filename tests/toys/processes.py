"""Other processes for tests, forked from one that has imported everything."""

import multiprocessing
import os
import socket
import sys
import textwrap
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["kd_train.training.train_study", "layerangles_cli.main"])


@dataclass(frozen=True)
class Ended:
    """The end of a process: its exit code (-9 for SIGKILL) and its standard error."""

    code: int | None
    err: str


def _run(script: str, environment: dict[str, str], said: Connection) -> None:
    os.dup2(said.fileno(), 2)  # a pipe, which no limit of file sizes concerns
    os.environ.update(environment)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    warnings.simplefilter("error")
    import torch

    torch.set_num_threads(1)
    exec(script, {"__name__": "__main__"})  # noqa: S102 (a test's own text)


def in_processes(script: str, *, n: int = 1, environment: dict[str, str] | None = None) -> list[Ended]:
    """Run a script in other processes; several know their ranks, as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(n):
        variables = {"OMP_NUM_THREADS": "1"} | (environment or {})
        if n > 1:
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ours, theirs = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run, args=(textwrap.dedent(script), variables, theirs))
        process.start()
        theirs.close()
        started.append((process, ours))
    ended = []
    for process, ours in started:
        written = b""
        while piece := os.read(ours.fileno(), 1 << 16):
            written += piece
        process.join()
        ours.close()
        ended.append(Ended(process.exitcode, written.decode()))
    return ended

"""How SIGTERM and SIGHUP stop a command of the command line: as Ctrl-C does, and with an exit code of their own.

Only commands use this. A notebook, and a script that calls `build`, keep the handlers that they have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Have SIGTERM (SLURM, Kubernetes, systemd) and SIGHUP (a closed terminal) interrupt the block; a second one kills.

    Afterwards one sentence says so. A signal that is ignored (nohup) or handled already stays so. Raises typer.Exit
    with 128 and the signal's number.
    """
    received: list[int] = []
    named = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()  # no other thread may set handlers
    ours = [number for number in named if main and signal.getsignal(number) is signal.SIG_DFL]
    terminals = [stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream and stream.isatty()]

    def to_default() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

    def interrupt(signum: int, frame: object) -> None:
        to_default()
        received.append(signum)
        if signum != signal.SIGTERM:
            _to_nowhere(terminals)
        raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        name = signal.Signals(received[0]).name
        print(f"trm-nb: stopped by {name}; what was done is kept, run again to continue", file=sys.stderr, flush=True)
        raise typer.Exit(128 + received[0]) from None
    finally:
        to_default()


def _to_nowhere(terminals: list[int]) -> None:
    """A terminal that was closed takes no further word: writing to it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for terminal in terminals:
        os.dup2(nowhere, terminal)
    os.close(nowhere)

"""A Dask cluster behind pool.py's seam: the same tasks, the same bytes, workers on other machines.

`tcp://host:8786` (or `tls://`) is a scheduler that was started by hand; `local:4` starts one, with four workers, on
this machine and stops them when this process ends. Workers share the run's folder and see the sources under the same
paths; samples (with their text, and images that are not in files) and receipts cross the network, arrays never.
Workers need the versions that this process has, as others may render or encode other bytes: those are asked that are
there when a run begins.

A worker that dies costs its task only: Dask gives it to another. One that killed four workers in a row (Dask's
`allowed-failures`) comes back as KilledWorker, and pool.py takes it apart.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from trm_nb.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

R = TypeVar("R")
CONNECT_SECONDS = 30.0
NO_WORKERS_SECONDS = 60.0  # without any worker, after which a build ends with an error
SAME = ("trm-nb", "torch", "numpy", "pillow", "python-bidi", "pygments", "numcodecs")
INSTALL = "pip install 'trm-nb[cluster]'"

_connected: dict[str, Cluster] = {}


def connect(address: str) -> Cluster:
    """The cluster at `tcp://host:port`, or of `local:N` processes; the same object while it works. Raises UserError."""
    known = _connected.get(address)
    if known is None or not known.alive():
        if known is not None:
            known.close()
        known = _connected[address] = Cluster(address)
    return known


class Cluster:
    """Workers of a Dask cluster, as pool.py uses them."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ImportError:
            raise UserError(f"cluster {address!r} needs the package distributed: {INSTALL}") from None
        self.address = address
        self.deaths: tuple[type[BaseException], ...] = (KilledWorker,)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._without_workers_since: float | None = None
        atexit.register(self.close)
        workers = int(address.removeprefix("local:")) if address.startswith("local:") else 0
        at = {"scheduler_file": self._start(workers)} if workers else {"address": address}
        try:
            self._client: Client = Client(**at, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
            self._client.wait_for_workers(max(1, workers), timeout=CONNECT_SECONDS)
        except (OSError, TimeoutError, TypeError, ValueError) as error:  # TypeError: tls:// without Dask's settings
            self.close()
            reason = " ".join(str(error).split())
            raise UserError(
                f"cluster {address!r}: no scheduler with a worker answered within {CONNECT_SECONDS:.0f} s ({reason}); "
                "start `dask scheduler` and `dask worker`, see docs/how-to/cluster.md"
            ) from None
        self._executor = self._client.get_executor(pure=False)  # type: ignore[no-untyped-call]  # pure=True would merge equal calls
        self._refuse_other_versions()

    def _start(self, workers: int) -> str:
        """A scheduler and workers as programs of their own, as a script needs no guard then; the scheduler's file."""
        folder = tempfile.TemporaryDirectory(prefix="trm-nb-cluster-")
        atexit.register(folder.cleanup)
        found = Path(folder.name) / "scheduler.json"
        common = ["--scheduler-file", str(found), "--no-dashboard", "--host", "127.0.0.1"]
        quiet = {**os.environ, "DASK_LOGGING__DISTRIBUTED": "error"}
        for arguments in (
            ["dask_scheduler", *common, "--port", "0", "--idle-timeout", "120"],  # ends itself when this is killed
            ["dask_worker", *common, "--nworkers", str(workers), "--nthreads", "1", "--local-directory", folder.name],
        ):
            command = [sys.executable, "-m", f"distributed.cli.{arguments[0]}", *arguments[1:]]
            self._processes.append(
                # in a session of their own, so that Ctrl-C and a signal to a whole job leave their end to `close`
                subprocess.Popen(command, env=quiet, stderr=subprocess.DEVNULL, start_new_session=True)
            )
            deadline = time.monotonic() + CONNECT_SECONDS
            while not found.is_file() and time.monotonic() < deadline and self._processes[0].poll() is None:
                time.sleep(0.05)
        if not found.is_file():
            self.close()
            raise UserError(f"cluster {self.address!r}: its scheduler did not start; `dask scheduler` says why")
        return str(found)

    # -- what pool.py asks ------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        """Whether the scheduler still answers."""
        client = self.__dict__.get("_client")
        return (
            client is not None
            and client.status == "running"
            and all(process.poll() is None for process in self._processes)
        )

    def size(self) -> int:
        """Workers at this moment. Raises UserError when the scheduler, or every worker, has been gone for a while."""
        client = self.__dict__.get("_client")  # another thread may close it
        if client is None or not self.alive():
            self.lost()
        count, now = len(client.scheduler_info(n_workers=-1)["workers"]), time.monotonic()
        if count:
            self._without_workers_since = None
        elif self._without_workers_since is None:
            self._without_workers_since = now
        elif now - self._without_workers_since > NO_WORKERS_SECONDS:
            raise UserError(
                f"cluster {self.address!r} has had no worker for {NO_WORKERS_SECONDS:.0f} s; "
                "start some and run again, it continues"
            )
        return max(1, count)

    def submit(self, function: Callable[..., R], *arguments: Any) -> Future[R]:
        """Have a worker call a function."""
        return self._executor.submit(function, *arguments)  # type: ignore[no-any-return]

    def died(self, future: Future[Any]) -> bool:
        """Whether a finished task killed its workers. Raises UserError when the scheduler went and took it along."""
        try:
            return isinstance(future.exception(), self.deaths)
        except CancelledError:
            self.lost()

    def end_hung(self, what: str, seconds: float) -> NoReturn:
        """There is no way to kill a worker elsewhere, so a task that hangs ends the build."""
        raise UserError(
            f"cluster {self.address!r}: {what} has shown no sign of life for {seconds:.0f} s; "
            "restart its worker and run again, it continues"
        )

    def lost(self) -> NoReturn:
        """The scheduler is gone."""
        self.close()  # else the client goes on calling it
        raise UserError(f"cluster {self.address!r}: the scheduler is gone; start it and run again, it continues")

    def close(self) -> None:
        """Disconnect, and end what was started here."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            with contextlib.suppress(OSError, TimeoutError):
                if self._processes:
                    client.shutdown()  # its workers too, and what watches them
                else:
                    client.close(timeout=2)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()

    # -- are these workers good for us? -----------------------------------------------------------------------------

    def refuse_blind_workers(self, paths: Sequence[Path]) -> None:
        """Raise UserError when a worker does not see one of these files and folders, which this process sees."""
        asked = [str(path) for path in paths]
        for worker, blind in self._client.run(_unseen, asked).items():
            if blind:
                raise UserError(
                    f"cluster {self.address!r}: the worker {worker} does not see {blind[0]}; "
                    "workers need the run's folder and the sources under the same paths"
                )

    def _refuse_other_versions(self) -> None:
        ours = _versions()
        try:
            found: dict[str, dict[str, str]] = self._client.run(_versions)
        except Exception as error:  # whatever unpickling raised there
            self.close()
            raise UserError(
                f"cluster {self.address!r}: a worker cannot import trm_nb ({error}); install it where the workers run"
            ) from None
        for worker, theirs in found.items():
            for name in SAME:
                if theirs[name] != ours[name]:
                    self.close()
                    raise UserError(
                        f"cluster {self.address!r}: the worker {worker} has {name} {theirs[name]} and this process has "
                        f"{ours[name]}, which may give other bytes; install the same versions"
                    )


def _versions() -> dict[str, str]:
    found = {}
    for name in SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _unseen(paths: list[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]

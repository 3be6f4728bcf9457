"""Execute one notebook: the child process of the runner, `python -m trm_nb.batch.execute`.

A process of its own for each notebook (child.py), because papermill changes the working directory of its process, and
because a notebook that takes the interpreter down must not take the runner with it.

The kernel is always the interpreter that runs this, whatever the notebook's metadata asks for: a kernel that is not
registered in a virtual environment is the most frequent complaint about papermill. Sockets are files where the path
is short enough (`ipc`), which takes away the race for free ports.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trm_nb.batch.child import INTERRUPTED, obey_the_parent
from trm_nb.batch.outcome import Truth, as_bytes, read_notebook, resolve

_SOCKET_PATH_LIMIT = 90  # bytes; sun_path holds 104 on macOS and 108 on Linux, less the suffix that Jupyter adds
_AUTOSAVE_SECONDS = 5
KERNEL_DIED = "the kernel died while this cell ran (killed, or out of memory)"


def execute(source: Path, partial: Path, parameters: dict[str, Any], folder: Path) -> Truth:
    """Run the notebook `source` in `folder` and leave it, with its truth, in `partial`.

    Raises KeyboardInterrupt after the truth is written when it is interrupted (SIGINT, SIGTERM, runner gone).
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    notebook = nbformat.from_dict(read_notebook(source))  # type: ignore[no-untyped-call]
    notebook.metadata.pop("trm_nb", None)
    running: list[int] = []
    started = time.monotonic()
    truth = Truth("failed", None, "the notebook did not start")
    try:
        with _kernel_manager() as manager:
            papermill.execute_notebook(
                notebook,
                # papermill takes a path for a format string
                str(partial).replace("{", "{{").replace("}", "}}"),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                cwd=str(folder),
                progress_bar=False,
                autosave_cell_every=_AUTOSAVE_SECONDS,
                kernel_manager_class=manager,
                coalesce_streams=True,
                on_cell_start=lambda cell, cell_index: running.append(cell_index),
            )
        truth = Truth("done")
    except papermill.PapermillExecutionError as error:
        truth = Truth("failed", error.cell_index, _one_line(error.ename, error.evalue), error.ename == "UserError")
    except DeadKernelError:
        truth = Truth("failed", _last(running), KERNEL_DIED)
    except KeyboardInterrupt:
        truth = Truth("interrupted", _last(running), "interrupted")
        raise
    except Exception as error:
        truth = Truth("failed", _last(running), _one_line(type(error).__name__, str(error)))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on it takes milliseconds
        _write_truth(source, partial, truth, time.monotonic() - started)
    return truth


def _write_truth(source: Path, partial: Path, truth: Truth, seconds: float) -> None:
    notebook = read_notebook(partial) or read_notebook(source)
    if notebook is not None:
        resolve(notebook, truth, seconds=round(seconds, 3), environment=environment())
        notebook["metadata"].get("papermill", {}).update(input_path=source.name, output_path=source.name)
        partial.write_bytes(as_bytes(notebook))


def _last(running: list[int]) -> int | None:
    return running[-1] if running else None


def _one_line(name: str, message: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if name == "UserError":
        return " ".join(lines)
    return f"{name}: {lines[-1]}" if lines else name


def environment() -> dict[str, str]:
    """What ran the notebook: versions of what can change a result, the platform and the cores."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())}
    for name in ("trm-nb", "torch", "numpy", "zarr", "pillow", "papermill", "ipykernel"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def _kernel_manager() -> Iterator[type]:
    """A kernel manager class that starts this interpreter, with its sockets in a private temporary folder."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    folder = Path(tempfile.mkdtemp(prefix="trm-"))
    short = os.name != "nt" and len(os.fsencode(folder / "kernel-ipc-1")) <= _SOCKET_PATH_LIMIT
    spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
    )

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.connection_file = str(folder / "kernel.json")
            self.transport = "ipc" if short else "tcp"
            self._kernel_spec = spec

    try:
        yield ThisInterpreter
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Read the job from standard input, execute, and say by the exit code how it went (0, 1, 130)."""
    job = obey_the_parent()
    try:
        truth = execute(Path(job["source"]), Path(job["partial"]), job["parameters"], Path(job["folder"]))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0 if truth.status == "done" else 1


if __name__ == "__main__":
    sys.exit(main())

"""The metrics of a training, also for TensorBoard or trackio, where the config's `logger` asks for it.

Both are optional packages, imported here alone. What they hold is a copy: metrics.jsonl is the record. A training that
continues after a kill logs the steps since its last checkpoint again, with equal values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from trm_nb.errors import UserError
from trm_nb.progress.run_folder import ModelPaths

Log: TypeAlias = Callable[[int, Mapping[str, float]], None]  # of a step and its metrics


@contextmanager
def metric_logger(name: str | None, paths: ModelPaths, first_step: int = 0) -> Iterator[Log]:
    """What the training loop calls with the metrics of each logged step.

    Args:
        name: "tensorboard" writes files into the model's folder, "trackio" a run of the model's name into trackio's
            project of the run's name; None logs nothing.
        paths: the model's folder.
        first_step: how many steps are done; what TensorBoard holds of later ones is replaced.

    Raises:
        UserError: when the package is not installed.
    """
    if name is None:
        yield lambda step, metrics: None
    elif name == "tensorboard":
        yield from _tensorboard(paths, first_step)
    else:
        yield from _trackio(paths)


def _tensorboard(paths: ModelPaths, first_step: int) -> Iterator[Log]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None
    with SummaryWriter(paths.tensorboard, purge_step=first_step + 1) as writer:

        def log(step: int, metrics: Mapping[str, float]) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield log


def _trackio(paths: ModelPaths) -> Iterator[Log]:
    try:
        import trackio
    except ImportError:
        raise _missing("trackio") from None
    root = paths.root.absolute()
    trackio.init(project=root.parent.parent.name, name=root.name, resume="allow", embed=False)
    try:
        yield lambda step, metrics: trackio.log(dict(metrics), step=step)
    finally:
        trackio.finish()


def _missing(name: str) -> UserError:
    return UserError(f"logger={name}: the package {name} is not installed; `pip install 'trm-nb[{name}]'`")

"""Checkpoints: tensors and plain values, written durably, read without ever running what is in them.

`torch.load` only with weights_only=True, so a file from a stranger can at worst be refused. A file that does not fit is
an error in one sentence, never a silent fallback to something else.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.storage.files import write_file


def save_checkpoint(path: str | Path, kind: str, values: dict[str, Any]) -> None:
    """Write `values` (tensors, numbers, strings, lists, dicts) to `path`; `kind` says what the file is for."""
    buffer = io.BytesIO()
    torch.save({**values, "kind": kind}, buffer)
    write_file(Path(path), buffer.getvalue())


def load_checkpoint(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint of this `kind` onto the CPU; raises UserError when there is none, or it is something else."""
    values = read_torch(path, kind)
    got = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if got != kind:
        raise UserError(
            f"{path}: expected a checkpoint of the {kind}, got one of {got!r}; check the path, or remove the file to "
            "begin anew"
        )
    return dict(values)


def read_torch(path: str | Path, kind: str) -> Any:
    """What a file of torch holds, with tensors on the CPU; raises UserError, which names the `kind`, for no such file.

    Only tensors and plain values are read, so that nothing in the file is ever run.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint of the {kind}, found no file; check the path")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums in it
            with zipfile.ZipFile(path) as archive:
                if altered := archive.testzip():
                    raise ValueError(f"the checksum of {altered} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a stranger's bytes make of the reader: IndexError, EOFError and many more
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: expected a checkpoint of the {kind}, got a file torch cannot read ({reason}); "
            "check the path, or remove the file to begin anew"
        ) from None


def save_weights(path: str | Path, kind: str, weights: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write weights as safetensors, with `values` (numbers, strings, lists, dicts) as JSON in the header.

    The header has one entry with sorted keys, so that equal weights and values give equal bytes.
    """
    header = {"values": json.dumps({**values, "kind": kind}, sort_keys=True)}
    tensors = {name: weights[name].detach().cpu().contiguous() for name in sorted(weights)}
    write_file(Path(path), save(tensors, header))


def read_weights(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_weights` wrote: weights on the CPU, and values; raises UserError as `load_checkpoint` does."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint of the {kind}, found no file; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        values = json.loads(header.get("values", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: expected a checkpoint of the {kind} as safetensors, got a file that cannot be read ({error}); "
            "check the path"
        ) from None
    got = values.pop("kind", None) if isinstance(values, dict) else None
    if got != kind:
        raise UserError(f"{path}: expected a checkpoint of the {kind}, got one of {got!r}; check the path")
    return weights, values


def fingerprint_of(settings: str, module: nn.Module) -> str:
    """16 hex digits over settings and the bytes of a module's weights as they are now."""
    digest = hashlib.sha256(settings.encode())
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_weights(module: nn.Module, weights: object, path: str | Path) -> None:
    """Put `weights`, a state_dict, into `module`; raises UserError naming the first weight that does not fit."""
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise UserError(
            f"{path}: expected a table of weights, got {type(weights).__name__}; the file is not of this program"
        )
    for name, want, got in misfits(module, weights):
        raise UserError(
            f"{path}: for the weight {name!r} expected {want or 'nothing'}, got {got or 'nothing'}; it is of another "
            "model or version"
        )
    module.load_state_dict(weights)


def refuse_another(path: Path, got: object, wanted: Mapping[str, object]) -> None:
    """Raise UserError when a checkpoint is of a training that follows from other values than those wanted.

    A value that it does not have came later, and was off: 0, False or None.
    """
    bound = got if isinstance(got, dict) else {}
    different = [
        f"{name}={bound.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if bound.get(name) != value and (name in bound or value)
    ]
    if different:
        raise UserError(f"{path}: this training has {'; '.join(different)}; use another folder, or remove the file")


def misfits(module: nn.Module, weights: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """Name, shape wanted and shape given of each weight that does not fit, by name; "" for one that is not there."""
    wanted = {name: str(tuple(weight.shape)) for name, weight in module.state_dict().items()}
    given = {name: str(tuple(weight.shape)) for name, weight in weights.items()}
    names = sorted(wanted.keys() | given.keys())
    return [(n, wanted.get(n, ""), given.get(n, "")) for n in names if wanted.get(n) != given.get(n)]

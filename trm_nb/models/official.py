"""Published checkpoints of the official TRM code (SamsungSAILMontreal/TinyRecursiveModels) as a TinyRecursiveModel.

That code saves the weights as `step_<number>` and the settings of the training as `all_config.yaml` beside them. Sizes
are read from the weights; what the weights do not tell is read from the settings. All weights are carried over, the
rows of the puzzle embedding included. What a checkpoint does not hold cannot be: which puzzle a row of that embedding
is of (`identifiers.json` of the dataset that it was trained on tells; a puzzle that was not trained on has no row), the
optimisers' state, and whether the weights are the moving average (they are where the training had `ema=True`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_torch
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig, our_name

KIND = "official TRM"
SETTINGS = "all_config.yaml"
MAX_BYTES = 100_000  # of the settings, which have some 2,000
MAX_NUMBER = 10_000  # of cycles, steps, heads and places
# Settings that are constants here, with their one value in all published configurations.
_FIXED: Mapping[str, Any] = {"expansion": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "no_ACT_continue": True}
_NUMBERS = ("H_cycles", "L_cycles", "halt_max_steps", "num_heads", "puzzle_emb_len")


def load_official(
    path: str | Path, seq_len: int | None = None, arch: Mapping[str, Any] | None = None
) -> TinyRecursiveModel:
    """Load a published checkpoint.

    Args:
        path: `step_<number>` as the official code saves it, or the same weights as safetensors.
        seq_len: the number of answer places: 81 for Sudoku, 900 for ARC and Maze. None: what the weights tell, which
            they do with `mlp_t`.
        arch: the settings that the official configuration has under `arch`; None: those in `all_config.yaml` beside
            the weights.

    Returns:
        The model, in float32 on the CPU. A batch has `inputs` int (b, seq_len) and `puzzle_identifiers` int (b,), as
        the official datasets have them.

    Raises:
        UserError: when a file is missing, damaged or something else, naming the weight or the setting that does not
            fit.
    """
    path = Path(path)
    weights = _weights(path)
    return TinyRecursiveModel.from_official(weights, _config(path, weights, arch or _settings(path), seq_len))


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            values: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path}: expected the weights of an {KIND} as safetensors ({error}); check the path"
            ) from None
    else:
        values = read_torch(path, KIND)
    if not isinstance(values, dict) or not all(isinstance(weight, Tensor) for weight in values.values()):
        raise UserError(f"{path}: expected the weights of an {KIND}, got something else; check the path")
    return {our_name(str(name)): weight for name, weight in values.items()}


def _settings(path: Path) -> Mapping[str, Any]:
    beside = path.with_name(SETTINGS)
    try:
        held = yaml.safe_load(beside.read_bytes()) if beside.stat().st_size <= MAX_BYTES else None
    except FileNotFoundError:
        raise UserError(
            f"{beside}: expected the settings of the training beside its weights, found no file; copy it there, or "
            "give `arch`"
        ) from None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        held = None
    arch = held.get("arch") if isinstance(held, dict) else None
    if not isinstance(arch, dict):
        raise UserError(f"{beside}: expected settings with `arch`, got something else; copy it again, or give `arch`")
    return arch


def _config(path: Path, weights: Mapping[str, Tensor], arch: Mapping[str, Any], seq_len: int | None) -> TRMConfig:
    head = _matrix(path, weights, "lm_head.weight")
    mlp_t = bool(arch.get("mlp_t", False))
    for name, value in {**_FIXED, "pos_encodings": arch.get("pos_encodings") if mlp_t else "rope"}.items():
        if arch.get(name, value) != value:
            raise UserError(f"{path}: expected {name}={value!r}, got {arch[name]!r}, which is not supported here")
    numbers: dict[str, Any] = {name: _number(path, arch, name) for name in _NUMBERS}
    has_puzzles = "puzzle_emb.weight" in weights
    puzzles, width = _matrix(path, weights, "puzzle_emb.weight").shape if has_puzzles else (0, 0)
    places = numbers["puzzle_emb_len"] or -(-width // head.shape[1])
    if mlp_t:
        held = _matrix(path, weights, "net.layers.0.mlp_t.gate_up_proj.weight").shape[1] - places
        if seq_len not in (None, held):
            raise UserError(f"{path}: these weights are of seq_len={held}, got seq_len={seq_len}")
        seq_len = held
    if seq_len is None:
        raise UserError(f"{path}: the weights do not tell seq_len; give it: 81 for Sudoku, 900 for ARC and Maze")
    return TRMConfig(
        vocab_size=head.shape[0], seq_len=seq_len, hidden_size=head.shape[1], num_heads=numbers["num_heads"],
        L_layers=len({name.split(".")[2] for name in weights if name.startswith("net.layers.")}),
        H_cycles=numbers["H_cycles"], L_cycles=numbers["L_cycles"], mlp_t=mlp_t,
        num_puzzle_identifiers=puzzles, puzzle_emb_ndim=width, puzzle_emb_len=places,
        halt_max_steps=numbers["halt_max_steps"],
    )  # fmt: skip


def _matrix(path: Path, weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights or weights[name].ndim != 2:
        raise UserError(f"{path}: the weight {name!r} is missing or no matrix, so these are not those of an {KIND}")
    return weights[name]


def _number(path: Path, arch: Mapping[str, Any], name: str) -> int:
    value = arch.get(name, 16 if name == "puzzle_emb_len" else None)
    if type(value) is not int or not (name != "puzzle_emb_len") <= value <= MAX_NUMBER:
        raise UserError(f"{path}: for {name} expected a number up to {MAX_NUMBER:,} in its settings, got {value!r}")
    return value

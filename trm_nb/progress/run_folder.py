"""A run's folder and those of its models: the names in them, whether a folder is a run's, and its frozen settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_nb.errors import DamagedError, UserError
from trm_nb.storage.files import read_json
from trm_nb.storage.lock_holder import LOCK


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where everything of a run lies; no other module knows a name in a run's folder."""

    root: Path

    @property
    def tracker(self) -> Path:
        """The tracker's database."""
        return self.root / "progress.sqlite"

    @property
    def frozen_copy(self) -> Path:
        """A copy of the settings that are frozen."""
        return self.root / ".frozen.json"

    @property
    def images(self) -> Path:
        """The image cache."""
        return self.root / "images.zarr"

    @property
    def batches(self) -> Path:
        """The Zarr array of encoded batches that are in no chunk yet."""
        return self.root / "batches.zarr" / "capsules"

    @property
    def capsules(self) -> Path:
        """The Zarr array of the consolidated capsules."""
        return self.root / "capsules.zarr" / "capsules"

    @property
    def labels(self) -> Path:
        """The Zarr array of the labels' numbers."""
        return self.root / "capsules.zarr" / "labels"

    @property
    def samples(self) -> Path:
        """The table of the samples."""
        return self.root / "samples.parquet"

    @property
    def quarantine(self) -> Path:
        """What could not be used, with the reasons."""
        return self.root / "quarantine.jsonl"

    @property
    def info(self) -> Path:
        """What the dataset is and what it was made with; written last."""
        return self.root / "dataset_info.json"

    @property
    def card(self) -> Path:
        """The dataset card."""
        return self.root / "README.md"

    @property
    def models(self) -> Path:
        """The folder of the models that were trained on this run's dataset, a folder each."""
        return self.root / "models"

    def model(self, name: str) -> ModelPaths:
        """The folder of one of them; `name` is a config's `model`, which is checked there."""
        return ModelPaths(self.models / name)

    @property
    def former_model(self) -> Path:
        """The folder of the one model of a run that an earlier version made."""
        return self.root / "model"

    @property
    def encoder(self) -> Path:
        """The folder in which an encoder is fitted to this run; it belongs to the dataset."""
        return self.root / "encoder"

    @property
    def fitted_encoder(self) -> Path:
        """The encoder that was fitted to this run."""
        return self.encoder / "encoder.pt"

    def model_folders(self) -> list[Path]:
        """The folders that are in `models`, by name, hidden ones excepted."""
        return [path for path in sorted(self.models.glob("[!.]*")) if path.is_dir()]

    @property
    def evaluation(self) -> Path:
        """The folder of what models are asked besides this run's samples: a run for each set, with the same encoder."""
        return self.root / "evaluation"

    @property
    def notebooks(self) -> Path:
        """The executed notebooks."""
        return self.root / "notebooks"

    @property
    def report(self) -> Path:
        """The notebooks as web pages."""
        return self.root / "report"

    @property
    def single_report(self) -> Path:
        """The whole report as one file."""
        return self.root / "report.html"

    @property
    def printed_report(self) -> Path:
        """The same as PDF."""
        return self.root / "report.pdf"

    @property
    def tables(self) -> tuple[Path, ...]:
        """The files that are written once the dataset is complete, the last one last."""
        return (self.samples, self.quarantine, self.card, self.info)

    def made(self) -> list[Path]:
        """What a run makes in its folder, the image cache excepted, whether it is there or not."""
        return [
            self.batches.parent, self.capsules.parent, *self.tables, self.frozen_copy, self.encoder, self.models,
            self.evaluation, self.notebooks, self.report, self.single_report, self.printed_report,
            *self.root.glob(f"{self.tracker.stem}.*"),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """Where everything of one training lies; no other module knows a name in a model's folder."""

    root: Path

    @property
    def settings(self) -> Path:
        """What it is trained with and on, written before the first step."""
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """How the training went: a line for each logged step up to the last checkpoint."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The state that training continues from. It stays at the end, as `train_steps` may be raised later."""
        return self.root / "training.pt"

    @property
    def weights(self) -> Path:
        """The trained model: the moving average of its weights, with all that is needed to make the model again."""
        return self.root / "model.safetensors"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files, where the config's `logger` asks for them."""
        return self.root / "tensorboard"

    @property
    def predictions(self) -> Path:
        """What it predicts for the validation samples and the held-out ones."""
        return self.root / "predictions.parquet"

    @property
    def result(self) -> Path:
        """What it is worth, for programs."""
        return self.root / "result.json"

    @property
    def card(self) -> Path:
        """The model card, written last."""
        return self.root / "model_card.md"

    def submission(self, data: str) -> Path:
        """Where its answers to the ARC tasks of a set go, as Kaggle takes them; `data` is a file's name."""
        return self.root / "arc" / data / "submission.json"

    @property
    def results(self) -> tuple[Path, ...]:
        """What is written once the training is finished, the last one last."""
        return (self.weights, self.predictions, self.result, self.card)

    def is_begun(self) -> bool:
        """Whether there is something that a training with other settings would overwrite."""
        return self.checkpoint.is_file() or self.weights.is_file()

    def is_finished(self) -> bool:
        """Whether the training has come to its end, and all of its results are there."""
        return all(path.is_file() for path in self.results)


def read_frozen(folder: Path) -> dict[str, tuple[str, Any]]:
    """What `.frozen.json` says of the frozen settings: field -> (stage, value); {} where it is damaged."""
    try:
        return {
            name: (stage, value) for name, (stage, value) in read_json(RunPaths(folder).frozen_copy)["frozen"].items()
        }
    except (FileNotFoundError, DamagedError):
        return {}


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a run makes, with or without its tracker."""
    return any(receipts.is_dir() for receipts in (_image_receipts(folder), *_capsule_receipts(folder)))


def is_empty_run(folder: Path) -> bool:
    """Whether a folder was a run's and holds no dataset, as after `reset`: cached images at most."""
    paths = RunPaths(folder)
    made = any(path.exists() for path in (*_capsule_receipts(folder), paths.frozen_copy, paths.tracker))
    return not made and (_image_receipts(folder).is_dir() or (folder / LOCK).exists())


def has_capsules(folder: Path) -> bool:
    """Whether a folder holds receipts of encoded batches or of chunks."""
    return any(any(receipts.glob("[0-9]*")) for receipts in _capsule_receipts(folder))


def refuse_foreign(folder: Path) -> None:
    """Raise UserError when the folder holds something and is no run: a run would overwrite what is not its own."""
    if not folder.is_dir() or RunPaths(folder).tracker.exists():
        return
    if is_run(folder):  # whose tracker was lost
        return
    theirs = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if theirs:
        raise UserError(
            f"{folder} is not empty ({theirs[0]}) and holds no run; name a new or empty folder as output_dir"
        )


def _image_receipts(folder: Path) -> Path:
    return RunPaths(folder).images / "images" / "receipts"


def _capsule_receipts(folder: Path) -> tuple[Path, Path]:
    paths = RunPaths(folder)
    return paths.batches / "receipts", paths.capsules / "receipts"

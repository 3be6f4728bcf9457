"""Receipts: what a finished shard, batch or chunk contains. A file without one does not exist for readers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trm_nb.errors import DamagedError
from trm_nb.records import DenoiseResult, Receipt
from trm_nb.storage.files import read_json, write_json


def receipt_path(array: Path, number: int) -> Path:
    """Where the receipt of an array's file lies: inside the array, where readers of the store do not look."""
    return array / "receipts" / f"{number:08d}.json"


def receipt_numbers(array: Path) -> list[int]:
    """The numbers of an array's receipts, sorted."""
    return sorted(int(path.stem) for path in (array / "receipts").glob("[0-9]*.json"))


def file_numbers(array: Path) -> list[int]:
    """The numbers of an array's files, or of the folders that are left of them, sorted."""
    return sorted(int(path.name) for path in (array / "c").glob("[0-9]*"))


def write_receipt(array: Path, receipt: Receipt) -> None:
    """Write the receipt of an array's file durably."""
    write_json(receipt_path(array, receipt.number), asdict(receipt))


def read_receipt(path: Path) -> Receipt:
    """Read a receipt; raises DamagedError when it is not one."""
    try:
        return _receipt(read_json(path))
    except (TypeError, KeyError) as error:
        raise DamagedError(f"{path}: not a receipt ({error})") from None


def _receipt(values: dict[str, Any]) -> Receipt:
    denoised = {key: DenoiseResult(**given) for key, given in values.get("denoised", {}).items()}
    return Receipt(**{**values, "denoised": denoised, "parts": tuple(_receipt(part) for part in values["parts"])})

"""How others keep the same arrays: each peer writes (n, ...) arrays into a folder and reads them all back in order.

A peer is a pair of functions over a folder; what it does is what its documentation shows, with its defaults. `COMPRESS`
names those whose files are smaller than the raw bytes. Reading gives numpy arrays, in order, and touches each.
"""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Write = Callable[[Path, np.ndarray], None]
Read = Callable[[Path], Iterator[np.ndarray]]
COMPRESS = {"MosaicML MDS, zstd", "MosaicML MDS, png", "WebDataset, png", "HF datasets, Image", "LitData, zstd"}
CHUNK = 1 << 26  # bytes of a peer's shard: 64 MB, MDS' default


# -- one .npy a file -------------------------------------------------------------------------------------------------


def write_npy(folder: Path, rows: np.ndarray) -> None:
    for number, row in enumerate(rows):
        np.save(folder / f"{number:06d}.npy", row)


def read_npy(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        yield np.load(path)


# -- MosaicML Streaming ----------------------------------------------------------------------------------------------


def _streaming() -> Any:
    try:
        import streaming
    except RuntimeError:  # torchvision's wheel is for another torch; only Streaming's vision datasets want it
        for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "streaming")]:
            del sys.modules[name]
        stub = types.ModuleType("torchvision.datasets")
        stub.VisionDataset = object  # type: ignore[attr-defined]
        stub.CIFAR10 = stub.ImageFolder = stub.CocoDetection = object  # type: ignore[attr-defined]
        parent = types.ModuleType("torchvision")
        parent.datasets = stub  # type: ignore[attr-defined]
        sys.modules |= {"torchvision": parent, "torchvision.datasets": stub}
        for name in ("transforms", "transforms.functional"):
            sys.modules[f"torchvision.{name}"] = _anything(f"torchvision.{name}")
        import streaming

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # others ask whether there is one
    return streaming


def _anything(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__getattr__ = lambda attribute: object  # type: ignore[method-assign,assignment]
    return module


def write_mds(folder: Path, rows: np.ndarray, compression: str | None = None, png: bool = False) -> None:
    from PIL import Image

    kind = "png" if png else f"ndarray:{rows.dtype}:{','.join(map(str, rows.shape[1:]))}"
    with _streaming().MDSWriter(
        out=str(folder), columns={"x": kind}, compression=compression, size_limit=CHUNK
    ) as writer:
        for row in rows:
            writer.write({"x": Image.fromarray(row) if png else row})


def read_mds(folder: Path) -> Iterator[np.ndarray]:
    streaming = _streaming()
    streaming.base.util.clean_stale_shared_memory()
    for sample in streaming.StreamingDataset(local=str(folder), shuffle=False, batch_size=1):
        yield np.asarray(sample["x"])


# -- WebDataset ------------------------------------------------------------------------------------------------------


def write_webdataset(folder: Path, rows: np.ndarray, png: bool = False) -> None:
    import webdataset
    from PIL import Image

    with webdataset.ShardWriter(str(folder / "%06d.tar"), maxcount=1000, verbose=0) as writer:
        for number, row in enumerate(rows):
            value = {"png": Image.fromarray(row)} if png else {"npy": row}
            writer.write({"__key__": f"{number:06d}", **value})


def read_webdataset(folder: Path) -> Iterator[np.ndarray]:
    import webdataset

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"):
        yield sample["png"] if "png" in sample else sample["npy"]


# -- Hugging Face datasets -------------------------------------------------------------------------------------------


def write_hf(folder: Path, rows: np.ndarray, image: bool = False) -> None:
    import datasets
    from PIL import Image

    datasets.disable_progress_bars()
    kind = datasets.Image() if image else datasets.Array2D(shape=rows.shape[1:], dtype=str(rows.dtype))
    made = datasets.Dataset.from_generator(
        _hf_rows,
        features=datasets.Features({"x": kind}),
        cache_dir=str(folder / "cache"),
        gen_kwargs={"rows": _Unhashed(rows), "wrap": Image.fromarray if image else None},
        fingerprint=f"bench-{folder.name}",
    )
    made.save_to_disk(str(folder / "data"))


class _Unhashed:
    """Rows that the generator's cache does not hash and copy."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unhashed, (None,)


def _hf_rows(rows: _Unhashed, wrap: Callable[[np.ndarray], Any] | None) -> Iterator[dict[str, Any]]:
    for row in rows.rows:
        yield {"x": wrap(row) if wrap else row}


def read_hf(folder: Path, image: bool = False) -> Iterator[np.ndarray]:
    import datasets

    data = datasets.load_from_disk(str(folder / "data"))
    if image:
        for number in range(len(data)):
            yield np.asarray(data[number]["x"])
        return
    for block in data.with_format("numpy").iter(batch_size=100):
        yield from block["x"]


# -- LitData ---------------------------------------------------------------------------------------------------------


def _row_of(number: int, path: str) -> dict[str, np.ndarray]:
    return {"x": np.load(path, mmap_mode="r")[number].copy()}


def write_litdata(folder: Path, rows: np.ndarray, compression: str | None = None) -> None:
    import litdata

    raw = folder.parent / f"{folder.name}-raw.npy"  # its workers are processes, which must find the rows
    np.save(raw, rows)
    try:
        litdata.optimize(
            fn=partial(_row_of, path=str(raw)), inputs=list(range(len(rows))), output_dir=str(folder), num_workers=2,
            chunk_bytes="64MB", compression=compression, verbose=False,
        )  # fmt: skip
    finally:
        raw.unlink()


def read_litdata(folder: Path) -> Iterator[np.ndarray]:
    import litdata

    for row in litdata.StreamingDataset(str(folder), shuffle=False):
        yield np.asarray(row["x"])


IMAGES: dict[str, tuple[Write, Read]] = {
    "one .npy a file": (write_npy, read_npy),
    "MosaicML MDS, raw": (write_mds, read_mds),
    "MosaicML MDS, zstd": (partial(write_mds, compression="zstd"), read_mds),
    "MosaicML MDS, png": (partial(write_mds, png=True), read_mds),
    "WebDataset, png": (partial(write_webdataset, png=True), read_webdataset),
    "HF datasets, Image": (partial(write_hf, image=True), partial(read_hf, image=True)),
    "LitData, raw": (write_litdata, read_litdata),
    "LitData, zstd": (partial(write_litdata, compression="zstd"), read_litdata),
}
CAPSULES: dict[str, tuple[Write, Read]] = {
    "one .npy a file": (write_npy, read_npy),
    "MosaicML MDS, raw": (write_mds, read_mds),
    "WebDataset, npy": (write_webdataset, read_webdataset),
    "HF datasets, Array2D": (write_hf, read_hf),
    "LitData, raw": (write_litdata, read_litdata),
}


def png_bytes(row: np.ndarray) -> bytes:
    """A picture as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "PNG")
    return buffer.getvalue()

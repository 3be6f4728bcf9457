"""How fast and how small is our storage, beside others doing the same work in the same run?

`make peers` (in an environment of its own, with the peers), or `python tests/bench/storage.py [PART...]` without those
that are not installed. Parts: images (2,000 rendered text pages), capsules (20,000), consolidation (100 batches of 1000
beside `cp`), pools (reused, made anew, none at all), cache (a hit beside rendering and denoising). The ways take turns,
three times after a warm-up; medians; a figure is worth its ratio to the others. The page cache is warm for all. Ours
writes what a build writes: fsynced files, receipts with their sha256, and checks every byte when it reads.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import peers
import zarr

from trm_nb.cache.image_cache import ImageCache
from trm_nb.dataset.capsules import read_capsules
from trm_nb.denoise.noise2noise import Denoiser, Noise2NoiseUNet
from trm_nb.pipeline.consolidate import Consolidator
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import ImageFile, Item, Receipt
from trm_nb.render.text import TextRenderer
from trm_nb.storage import arrays, shards
from trm_nb.storage.files import commit, sha256_of
from trm_nb.storage.receipts import write_receipt
from trm_nb.workers.pool import run_tasks

TURNS = 3
IMAGES, CAPSULES, BATCH = 2000, 20_000, 1000


def pages(count: int) -> np.ndarray:
    """Text pages of the standard library's sources, as a build renders them: uint8 (count, 224, 224, 3)."""
    renderer, found, total = TextRenderer(), [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found.append(renderer.render_pages(path.read_text(encoding="utf-8")))
        total += len(found[-1])
        if total >= count:
            break
    return np.concatenate(found)[:count]


# -- ours ------------------------------------------------------------------------------------------------------------


def write_images(folder: Path, rows: np.ndarray) -> None:
    array, layout = folder / "images", arrays.image_layout(BATCH, rows.shape[1])
    for number, first in enumerate(range(0, len(rows), BATCH)):
        part = rows[first : first + BATCH]
        staged = shards.stage_shard(array / "receipts", part, layout)
        commit(staged, layout.file(array, number))
        keys = [f"{first + i:032x}" for i in range(len(part))]
        write_receipt(
            array,
            Receipt("images", number, len(part), staged.nbytes, staged.sha256, keys, shape=(BATCH, *rows.shape[1:])),
        )
    arrays.write_metadata(array, layout, len(rows))


def read_images(folder: Path) -> Iterator[np.ndarray]:
    cache = ImageCache(folder)
    for first in range(0, len(cache), 100):
        yield from cache.get_many([f"{row:032x}" for row in range(first, min(first + 100, len(cache)))])
    cache.close()


def write_batches(folder: Path, rows: np.ndarray) -> None:
    array = folder / "batches.zarr" / "capsules"
    batch, chunk = arrays.batch_layout(BATCH), arrays.chunk_layout(BATCH, 100)
    for number, first in enumerate(range(0, len(rows), BATCH)):
        staged = shards.stage_batch(array / "receipts", rows[first : first + BATCH], batch)
        commit(staged, batch.file(array, number))
        write_receipt(array, Receipt("batch", number, BATCH, staged.nbytes, staged.sha256))
    arrays.write_metadata(array, batch, len(rows))
    arrays.write_metadata(folder / "capsules.zarr" / "capsules", chunk, len(rows))


def read_batches(folder: Path) -> Iterator[np.ndarray]:
    rows = arrays.read_shape(folder / "capsules.zarr" / "capsules")[0]  # type: ignore[index]
    for first in range(0, rows, BATCH):
        yield from read_capsules(folder, range(first, first + BATCH))


def read_zarr(folder: Path, name: str, step: int, pipeline: str) -> Iterator[np.ndarray]:
    """Plain zarr-python on what we wrote, with its own or the zarrs pipeline."""
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        array = zarr.open_array(folder / name, mode="r")
        for first in range(0, array.shape[0], step):
            yield from array[first : first + step]


PIPELINES = {"zarr-python": "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs": "zarrs.ZarrsCodecPipeline"}


def memory_map(folder: Path) -> Iterator[np.ndarray]:
    """The bound: the raw array, copied out of a memory map in the same blocks."""
    mapped = np.load(folder / "raw.npy", mmap_mode="r")
    for first in range(0, len(mapped), BATCH):
        yield from np.array(mapped[first : first + BATCH])


# -- measuring -------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def use(rows: Iterator[np.ndarray]) -> int:
    """Look at every row: a byte of each page of memory, so that a map is really read."""
    return sum(int(row.reshape(-1).view(np.uint8)[::4096].sum()) for row in rows)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "raw.npy")


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def in_turns(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of what each way returns, after a warm-up; one that raises is left out, and said."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name in list(found):
            try:
                value = ways[name]()
            except Exception as error:  # a peer that is not installed, or fails here
                print(f"  ({name}: {type(error).__name__}: {str(error).splitlines()[0][:90]})", flush=True)
                del found[name]
                continue
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def table(
    root: Path,
    rows: np.ndarray,
    ours: tuple[peers.Write, peers.Read],
    others: dict[str, tuple[peers.Write, peers.Read]],
    readers: dict[str, peers.Read],
) -> tuple[dict[str, float], dict[str, float]]:
    """Write and read by each, `readers` reading what is ours; prints the table, returns (written, read) in seconds."""
    ways = {"ours": ours, **others}
    folders = {name: root / f"way{i}" for i, name in enumerate(ways)}
    written = in_turns({name: partial(_write, folders[name], rows, ways[name][0]) for name in ways})
    sizes = {name: size_of(folders[name]) for name in written}  # before a reader unpacks beside it
    read = in_turns(
        {name: partial(_read, folders[name], ways[name][1]) for name in written}
        | {name: partial(_read, folders["ours"], reader) for name, reader in readers.items()}
    )
    print(f"\n| {len(rows):,} rows of {rows[0].nbytes:,} bytes | write/s | read/s | part of raw |\n|---|---|---|---|")
    for name, spent in read.items():
        wrote = f"{len(rows) / written[name]:,.0f}" if name in written else "as ours"
        part = f"1/{rows.nbytes / sizes[name]:.1f}" if name in written else ""
        print(f"| {name} | {wrote} | {len(rows) / spent:,.0f} | {part} |")
    return written, read


def compare(what: str, figures: dict[str, float], names: set[str]) -> None:
    best = min(names & figures.keys(), key=figures.__getitem__, default=None)
    if best is not None:
        print(f"{what}: ours is {figures[best] / figures['ours']:.2f}x {best}")


def _write(folder: Path, rows: np.ndarray, write: peers.Write) -> float:
    fresh(folder)
    return seconds(lambda: write(folder, rows))


def _read(folder: Path, read: peers.Read) -> float:
    return seconds(lambda: use(read(folder)))


# -- the parts -------------------------------------------------------------------------------------------------------


def images(root: Path) -> None:
    """2,000 rendered text pages."""
    readers = {
        f"{name}, reading ours": partial(read_zarr, name="images", step=100, pipeline=pipeline)
        for name, pipeline in PIPELINES.items()
    }
    written, read = table(root, pages(IMAGES), (write_images, read_images), peers.IMAGES, readers)
    compare("writing, of those that compress", written, peers.COMPRESS)
    compare("reading, of those that compress", read, peers.COMPRESS)


def capsules(root: Path) -> None:
    """20,000 capsules of random normal numbers, which do not compress; batches as they are before consolidation."""
    rows = np.random.default_rng(0).standard_normal((CAPSULES, 12, 512), np.float32).astype(np.float16)
    (root / "way0").mkdir(parents=True)

    def write(folder: Path, rows: np.ndarray) -> None:
        write_batches(folder, rows)
        np.save(folder / "raw.npy", rows)

    readers = {"a memory map, copied": memory_map} | {
        f"{name}, reading ours": partial(read_zarr, name="batches.zarr/capsules", step=BATCH, pipeline=pipeline)
        for name, pipeline in PIPELINES.items()
    }
    _, read = table(root, rows, (write, read_batches), peers.CAPSULES, readers)
    compare("reading", read, {"a memory map, copied"})
    compare("reading", read, set(peers.CAPSULES))


def consolidation(root: Path) -> None:
    """100 batches of 1000 into a chunk, beside `cp` of the same files; each in a process of its own."""
    master = root / "master"
    block = np.random.default_rng(0).standard_normal((BATCH, 12, 512), np.float32).astype(np.float16)
    write_batches(master, np.broadcast_to(block, (100, *block.shape)).reshape(-1, 12, 512))
    growth, making = [], []

    def copy(name: str) -> None:
        subprocess.run(["cp", "-r", str(master), str(root / name)], check=True)

    def same_start(name: str) -> None:
        """Nothing waits to be written, and as much memory was just freed: virtual machines are slow to find new."""
        shutil.rmtree(root / name, ignore_errors=True)
        copy("spare")
        os.sync()
        shutil.rmtree(root / "spare")

    def copied(durably: bool) -> float:
        same_start("copy")
        made = seconds(lambda: copy("copy"))
        if durably:
            files = [str(path) for path in (root / "copy").rglob("*") if path.is_file()]
            made += seconds(lambda: subprocess.run(["sync", *files], check=True))
        return made

    def ours() -> float:
        shutil.rmtree(root / "run", ignore_errors=True)
        copy("run")
        same_start("copy")
        command = [sys.executable, __file__, "consolidate-here", str(root / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        growth.append(float(done[1]))
        making.append(float(done[2]))
        return float(done[0])

    ways = {"ours": ours, "cp": partial(copied, False), "cp, then sync": partial(copied, True)}
    figures = in_turns(ways)
    figures = {"ours, without deleting the batches": statistics.median(making[1:]), **figures}
    print(f"\n| 100 batches, {size_of(master / 'batches.zarr') / 1e9:.2f} GB | seconds |\n|---|---|")
    for name, spent in figures.items():
        print(f"| {name} | {spent:.2f} |")
    for name in ("cp", "cp, then sync"):
        ratios = [figures[name] / figures[way] for way in ("ours", "ours, without deleting the batches")]
        print(f"beside {name}: {ratios[0]:.2f}x its speed, {ratios[1]:.2f}x without deleting the batches")
    print(f"memory grew by at most {max(growth):.1f} MB")


def consolidate_here(folder: Path) -> None:
    tracker = TrainingProgressTracker(folder, create=True)
    consolidator = Consolidator(tracker, BATCH, 100)
    tracker.add_rows([PlannedRow(0, "a", "a", "text", "a", 0, 1, None, "train", "0")], [], [])
    for number in range(100):
        receipt = consolidator.batch_receipt_or_none(number)
        assert receipt is not None
        tracker.add_batch(receipt, 0.0)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    deleting, drop = [], consolidator.drop_loose
    consolidator.drop_loose = lambda batches: deleting.append(seconds(lambda: drop(batches)))  # type: ignore[method-assign]
    spent = seconds(lambda: consolidator.consolidate_ready(full_only=True))
    print(spent, memory("VmHWM") - before, spent - sum(deleting))


def memory(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _render(texts: list[str]) -> int:
    renderer = TextRenderer()
    return sum(len(renderer.render_pages(text)) for text in texts)


def pools(root: Path) -> None:
    """What a warm pool saves, and what none saves for few samples."""
    from loky import get_reusable_executor

    texts = [f"page {i}\n" + "x = 1\n" * 12 for i in range(49)]

    def work(cold: bool, min_pool: int) -> float:
        if cold:
            get_reusable_executor(max_workers=2).shutdown(wait=True, kill_workers=True)
        return seconds(lambda: list(run_tasks(_render, [texts[:25], texts[25:]], workers=2, min_pool=min_pool)))

    figures = in_turns(
        {
            "a pool made anew": partial(work, True, 0),
            "the pool reused": partial(work, False, 0),
            "no pool": partial(work, False, 50),
        }
    )
    print("\n| 49 pages of text | milliseconds |\n|---|---|")
    for name, spent in figures.items():
        print(f"| {name} | {1000 * spent:.1f} |")
    new = figures["a pool made anew"]
    print(f"reused: {new / figures['the pool reused']:.0f}x; none: {new / figures['no pool']:.0f}x")


def cache(root: Path) -> None:
    """Photographs rendered and denoised (untrained weights of the shipped size), and found in the cache."""
    photos = sorted((Path(sysconfig.get_path("purelib")) / "matplotlib/mpl-data/sample_data").glob("*.jpg"))
    photos += sorted((Path(__file__).parents[2] / "trm_nb/assets/demo").rglob("*.jpg"))
    root.mkdir(parents=True)
    Denoiser(Noise2NoiseUNet()).save(root / "n2n.pt")
    photos = photos[:40]

    def items() -> Iterator[Item]:
        for path in photos:
            yield Item(path.name, "image", ImageFile(path, sha256_of(path)))

    def fill() -> float:
        made = ImageCache(fresh(root / "cache"), use_denoiser=True, denoiser_path=root / "n2n.pt", workers=0)
        spent = seconds(lambda: made.populate(items()))
        made.close()
        return spent

    def hit() -> float:
        held = ImageCache(root / "cache", use_denoiser=True, denoiser_path=root / "n2n.pt", workers=0)
        spent = seconds(lambda: held.get_many(held.populate(items()).keys))
        held.close()
        return spent

    figures = in_turns({"rendered and denoised": fill, "found": hit})
    print(f"\n| {len(photos)} photographs | ms each |\n|---|---|")
    for name, spent in figures.items():
        print(f"| {name} | {1000 * spent / len(photos):.2f} |")
    print(f"found: {figures['rendered and denoised'] / figures['found']:.0f}x, computing the files' keys included")


PARTS = {"images": images, "capsules": capsules, "consolidation": consolidation, "pools": pools, "cache": cache}


def main(names: list[str]) -> None:
    if names[:1] == ["consolidate-here"]:
        consolidate_here(Path(names[1]))
        return
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[2] / "outputs", prefix="bench-") as folder:
        for name in names or PARTS:
            PARTS[name](Path(folder) / name)


if __name__ == "__main__":
    main(sys.argv[1:])

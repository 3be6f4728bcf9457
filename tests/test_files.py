"""files.py, receipts.py: files are whole or absent, receipts round-trip, the lock says who holds it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.errors import DamagedError, UserError
from trm_nb.records import DenoiseResult, Receipt
from trm_nb.storage.files import commit, locked, sha256_of, stage, stage_pieces, sweep, write_file
from trm_nb.storage.receipts import read_receipt, receipt_path, write_receipt


def test_a_file_appears_only_when_it_is_committed(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file"
    staged = stage(tmp_path, b"abc")
    assert not target.exists()
    commit(staged, target)
    assert target.read_bytes() == b"abc"
    assert (staged.nbytes, staged.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert sha256_of(target) == staged.sha256
    assert sweep(tmp_path) == 0


def test_sweep_removes_what_was_staged_and_never_committed(tmp_path: Path) -> None:
    write_file(tmp_path / "keep", b"1")
    stage(tmp_path, b"2")
    assert sweep(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


receipts = st.builds(
    Receipt,
    kind=st.sampled_from(["images", "batch", "chunk"]),
    number=st.integers(0, 10**7),
    rows=st.integers(0, 1000),
    nbytes=st.integers(0, 2**40),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    keys=st.lists(st.text("0123456789abcdef", max_size=32), max_size=4).map(tuple),
    failed=st.dictionaries(st.text(max_size=8), st.text(max_size=40), max_size=3),
    denoised=st.dictionaries(
        st.text(max_size=8), st.builds(DenoiseResult, st.floats(0, 255), st.text(max_size=9)), max_size=3
    ),
    made_from=st.text("abc", max_size=5),
    parts=st.just(()),
)


@given(receipt=receipts, parts=st.lists(receipts, max_size=3))
def test_receipts_round_trip(tmp_path_factory: pytest.TempPathFactory, receipt: Receipt, parts: list[Receipt]) -> None:
    folder = tmp_path_factory.mktemp("receipts")
    whole = Receipt("chunk", 7, 3, 5, "ab", parts=tuple(parts))
    write_receipt(folder, receipt)
    read = read_receipt(receipt_path(folder, receipt.number))
    assert (read.keys, read.failed, read.sha256) == (list(receipt.keys), receipt.failed, receipt.sha256)
    write_receipt(folder, whole)
    assert [part.number for part in read_receipt(receipt_path(folder, 7)).parts] == [part.number for part in parts]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"kind": "batch"}', b"\0" * 50], ids=str)
def test_a_damaged_receipt_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "00000001.json").write_bytes(data)
    with pytest.raises(DamagedError, match=r"00000001\.json: not (a receipt|what was written)"):
        read_receipt(tmp_path / "00000001.json")


@given(bit=st.integers(0, 10_000))
def test_no_altered_bit_of_a_receipt_is_believed(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    folder = tmp_path_factory.mktemp("receipts")
    written = Receipt("images", 3, 2, 99, "ab" * 32, keys=["00ff", ""], failed={"01": "no image: ü"})
    write_receipt(folder, written)
    path = receipt_path(folder, 3)
    data, at = bytearray(path.read_bytes()), bit % (8 * path.stat().st_size)
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)
    try:
        read = read_receipt(path)
    except DamagedError:
        return
    assert read == replace(written, parts=())  # it was a blank between two values


@pytest.mark.parametrize("damaged", [False, True])
def test_pieces_become_one_whole_file_or_none(tmp_path: Path, damaged: bool) -> None:
    sizes = [300_000, 1, 300_000, 77]

    def fill(piece: int, data: memoryview) -> None:
        if damaged and piece == 2:
            raise DamagedError("piece 2")
        data[:] = bytes([piece]) * sizes[piece]

    if damaged:
        with pytest.raises(DamagedError, match="piece 2"):
            stage_pieces(tmp_path, sizes, fill)
        assert list(tmp_path.iterdir()) == []
    else:
        whole = b"".join(bytes([piece]) * size for piece, size in enumerate(sizes))
        assert stage_pieces(tmp_path, sizes, fill).read_bytes() == whole


def test_a_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from trm_nb.storage.files import locked\n"
    code += "with locked(Path(sys.argv[1]), 'a long build'):\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} \\(a long build\\)"), locked(tmp_path, "mine"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    for _ in range(50):  # the lock dies with its process
        try:
            with locked(tmp_path, "mine"):
                return
        except UserError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        write_file(tmp_path / "first", b"x" * 10_000)
        with pytest.raises(UserError, match=r"the disk that holds .* is full; .* run again, it continues"):
            write_file(tmp_path / "second", b"x" * 100_000)
        assert [path.name for path in tmp_path.iterdir()] == ["first"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

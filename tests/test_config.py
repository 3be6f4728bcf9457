"""What a params file may say, what it is told when it is wrong, and that every shipped one can be used."""

from __future__ import annotations

import csv
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trm_nb.config import FROZEN, MultimodalDatasetConfig, stage_of, unknown_field
from trm_nb.errors import UserError
from trm_nb.params import find_params, load_params, parse_override, project_root, resolve_paths
from trm_nb.records import GENERATED_SOURCES, Item
from trm_nb.sources.puzzles.sudoku import difficulty, relabelled, solutions, sudokus
from trm_nb.sources.reader import list_files, scan

ROOT = Path(__file__).parents[1]
PARAMS = sorted((ROOT / "params").glob("*.yaml"))
ASKED = ("puzzle", "solution")
NEEDED = {"source_paths": ["data"], "output_dir": "out"}


def parse(**values: Any) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig.parse({**NEEDED, **values}, where="here")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "a project"
    for folder in ("notebooks/deep", "params", "data"):
        (root / folder).mkdir(parents=True)
    (root / "params/p.yaml").write_text(yaml.safe_dump(NEEDED), encoding="utf-8")
    monkeypatch.chdir(root / "notebooks/deep")
    return root


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"batchsize": 5}, "here: unknown parameter 'batchsize', did you mean 'batch_size'?", id="near"),
        pytest.param({"qqq": 5}, "unknown parameter 'qqq'; `trm-nb doctor` lists them", id="nothing near"),
        pytest.param({"batch_size": 0}, "here: batch_size: input should be greater than", id="too small"),
        pytest.param({"batch_size": "many"}, "got 'many'", id="not a number"),
        pytest.param({"image_size": 225}, "image_size: input should be a multiple of 28, got 225", id="no multiple"),
        pytest.param({"font_size": 10}, "font_size: there are two sizes: 12", id="font size"),
        pytest.param({"source_paths": []}, "source_paths: ", id="no sources"),
        pytest.param({"output_dir": ""}, "output_dir: ", id="empty output_dir"),
        pytest.param({"seed": 2**32}, "seed: ", id="seed too large"),
        pytest.param({"test_fraction": 1}, "test_fraction: ", id="all held out"),
    ],
)
def test_wrong_values_are_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NEEDED)
def test_required(name: str) -> None:
    with pytest.raises(UserError, match=f"here: '{name}' is required and missing"):
        MultimodalDatasetConfig.parse({k: v for k, v in NEEDED.items() if k != name}, where="here")


@pytest.mark.parametrize("name", MultimodalDatasetConfig.model_fields)
def test_every_field_has_stage_description_and_suggestion(name: str) -> None:
    assert stage_of(name) in (*FROZEN, "train", "free")
    assert MultimodalDatasetConfig.model_fields[name].description
    assert repr(name) in unknown_field(name[:-1] + "x")


@pytest.mark.parametrize("paths", ["a", ["a"], [Path("a")]], ids=["one", "list", "pathlib"])
def test_one_path_is_a_list_and_paths_are_strings(paths: Any) -> None:
    config = parse(source_paths=paths, output_dir=Path("b"))
    assert (config.source_paths, config.output_dir) == (["a"], "b")
    json.dumps(config.model_dump())


def test_fingerprints_change_with_the_stages_own_fields_only() -> None:
    one, other = parse(), parse(batch_size=7, workers=3, output_dir="elsewhere")
    assert one.fingerprint("plan") == other.fingerprint("plan")
    assert one.fingerprint("encode") != other.fingerprint("encode")
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == parse(workers=3, output_dir="elsewhere").fingerprint()


# ------------------------------------------------------------------------------------- files and paths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"a: [1\nb: 2\n", "not valid YAML at line 2, column 2", id="syntax"),
        pytest.param(b"a: b: c\n", "not valid YAML at line 1, column 5", id="two colons"),
        pytest.param(b"- a\n- b\n", "expected `name: value` lines, got list", id="list"),
        pytest.param(b"", "expected `name: value` lines, got NoneType", id="empty"),
        pytest.param(b"a: \xff\n", "is UTF-8 text, but byte 3 is not", id="not utf-8"),
        pytest.param(b"a: !!python/object/apply:os.getcwd []\n", "not valid YAML at line 1", id="no objects"),
    ],
)
def test_broken_yaml(project: Path, text: bytes, message: str) -> None:
    (project / "params/p.yaml").write_bytes(text)
    with pytest.raises(UserError) as error:
        load_params("params/p.yaml")
    assert str(error.value).startswith(f"{project / 'params/p.yaml'}: ")
    assert message in str(error.value)


def test_params_are_found_from_any_folder_of_the_project(project: Path) -> None:
    assert project_root(Path.cwd()) == project
    assert find_params("params/p.yaml") == find_params(project / "params/p.yaml") == project / "params/p.yaml"
    with pytest.raises(
        UserError, match=r"params file not found: params/q\.yaml \(looked at params/q\.yaml, .*a project/params/q"
    ):
        find_params("params/q.yaml")


def test_paths_are_relative_to_the_project(project: Path) -> None:
    config = load_params(
        "params/p.yaml", {"denoiser_path": "models/d.pt", "encoder_path": str(project.parent / "e.pt")}
    )
    assert config.source_paths == [str(project / "data")]
    assert config.output_dir == str(project / "out")
    assert config.denoiser_path == str(project / "models/d.pt")
    assert config.encoder_path == str(project.parent / "e.pt")
    assert resolve_paths(config, Path("/elsewhere")) == config


def test_overrides_win_also_with_none(project: Path) -> None:
    (project / "params/p.yaml").write_text(yaml.safe_dump({**NEEDED, "seed": 3, "limit": 4}), encoding="utf-8")
    assert load_params("params/p.yaml", {"limit": 9}).limit == 9
    assert load_params("params/p.yaml", {"limit": None}).limit is None
    with pytest.raises(UserError, match="did you mean 'limit'"):
        load_params("params/p.yaml", {"limits": 1})


# ------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=7", ("seed", 7)),
        ("include_text=false", ("include_text", False)),
        ("limit=null", ("limit", None)),
        ("limit=", ("limit", None)),
        ("learning_rate=0.001", ("learning_rate", 0.001)),
        ("source_paths=[a, b c]", ("source_paths", ["a", "b c"])),
        ("output_dir=a=b", ("output_dir", "a=b")),
        ("encoder=tiny", ("encoder", "tiny")),
    ],
)
def test_override(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "-p expects key=value, got 'seed'"),
        ("sed=1", "-p sed=1: unknown parameter 'sed', did you mean 'seed'?"),
        ("source_paths=[a", "not valid YAML; quote it"),
        ("=1", "unknown parameter ''"),
    ],
)
def test_wrong_override(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_override(text)
    assert message in str(error.value)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["base", "tiny"]), st.booleans())
def test_config_survives_yaml(seed: int, encoder: str, flag: bool) -> None:
    config = parse(seed=seed, encoder=encoder, include_text=flag, source_paths=["a: b", "ü\n#", "~"])
    assert MultimodalDatasetConfig.parse(yaml.safe_load(yaml.safe_dump(config.model_dump())), where="here") == config


# ------------------------------------------------------------------------------------- what is shipped


def test_the_params_files() -> None:
    puzzles = ["maze10", "maze30", "sudoku4", "sudoku6", "sudoku9", "sudoku9_hard"]
    assert sorted(path.stem for path in PARAMS) == sorted(["arc", "arc10", "demo", "full", "smoke", "text", *puzzles])


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.stem)
def test_params_load_and_each_line_is_explained(path: Path) -> None:
    config = load_params(path)
    assert Path(config.output_dir).is_relative_to(ROOT)
    assert path.read_text(encoding="utf-8").startswith("# ")
    fields = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] not in " #"]
    assert all("  # " in line for line in fields)


SHIPPED = [path for path in PARAMS if path.stem not in ("arc10", "full")]  # these read data of others


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_data_is_used_whole(path: Path) -> None:
    config = load_params(path)
    made = config.source_paths[0].startswith(GENERATED_SOURCES)  # tens of thousands, of which a few will do
    entries = [entry for reading in scan(config) for entry in islice(reading.entries, 20 if made else None)]
    assert entries
    assert all(isinstance(entry, Item) for entry in entries)


def test_demo_has_nine_labels_and_small_files_of_free_licences() -> None:
    config = load_params(ROOT / "params/demo.yaml")
    files = list(list_files(config))
    assert {file.label for file in files} == {Path(path).name for path in config.source_paths} - {"noisy"}
    assert len(config.source_paths) == 10
    assert max(file.size for file in files) < 2**20
    assert sum(file.size for file in files) < 4 * 2**20
    listed = (ROOT / "trm_nb/assets/demo/SOURCES.md").read_text(encoding="utf-8")
    missing = [f.name for f in files if f.label != "arc" and f"| {f.name} |" not in listed]
    assert not missing
    licences = {line.split(" | ")[-1] for line in listed.splitlines() if line.startswith("| photographs/")}
    assert licences and not [
        one for one in licences if not re.match(r"(CC0-1\.0|CC-BY-[1-4]\.0|public domain) \|$", one)
    ]


def test_the_demos_sudokus_have_one_solution_and_are_none_that_the_solver_learned_from() -> None:
    """It was trained on augmentations of boards from seed 7 (its card): no solution is one of them by another name."""
    with (ROOT / "trm_nb/assets/demo/sudoku/boards.csv").open() as file:
        rows = list(csv.DictReader(file))
    asked, right = ([np.array([*map(int, row[name])], np.int8).reshape(9, 9) for row in rows] for name in ASKED)
    assert (
        [difficulty(board) for board in asked] == [row["difficulty"] for row in rows] == ["easy", "medium", "hard"] * 20
    )
    assert all(np.array_equal(solutions(asked[place]), [right[place]]) for place in range(0, 60, 7))
    trained = {relabelled(one.solution).tobytes() for one in islice(sudokus(9, 7), 10) if one.solution is not None}
    assert len({relabelled(board).tobytes() for board in right} - trained) == 60

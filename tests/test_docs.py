"""What the documentation says is so: links lead somewhere, code runs, commands exist, no name is missing."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from conftest import make_sources

import trm_nb
from trm_nb.cli.main import app
from trm_nb.config import MultimodalDatasetConfig, stage_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The rooms")[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    if "_build" not in path.parts and "_notebooks" not in path.parts
)
NOT_RUN = "<!-- not run: "

PACKAGES = [path.parent.relative_to(ROOT) for path in ROOT.glob("trm_nb/*/**/__init__.py")]
FOLDERS = sorted(str(folder) for folder in PACKAGES if folder.name != "pretraining")  # which has one line in the tree


def _tracked() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]  # also what was not added yet
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Path(name) for name in names]


@pytest.mark.parametrize("folder", ["trm_nb", *FOLDERS, "notebooks", "tools", "docs"])
def test_the_file_tree_is_complete(folder: str) -> None:
    files = [path.name for path in _tracked() if path.parent == Path(folder) and path.suffix in (".py", ".ipynb")]
    missing = [name for name in files if name != "__init__.py" and f" {name} " not in ROOMS]
    assert not missing, f"CONTRIBUTING's rooms lack {missing} of {folder}"


def test_the_file_tree_names_nothing_that_is_gone() -> None:
    named = set(re.findall(r"^ +([\w.]+\.(?:py|ipynb)) ", ROOMS, flags=re.M))
    there = {path.name for path in (*ROOT.glob("*/*"), *ROOT.glob("trm_nb/**/*.py"))}
    assert named
    assert named <= there


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", _without_code(path.read_text(encoding="utf-8")), flags=re.M)
    return {_slug(heading) for heading in headings}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _links(text: str) -> list[str]:
    text = _without_code(text)
    inline = re.findall(r"\]\(([^)\s]+)\)", text)
    return [*inline, *re.findall(r"^\[[^\]]+\]: (\S+)$", text, flags=re.M)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_and_a_heading(page: str) -> None:
    for link in _links(_read(page)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", ["README.md", *(page for page in PAGES if page.startswith("docs/"))])
def test_lines_of_prose_end_at_120_characters(page: str) -> None:
    lines = _without_code(_read(page)).splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


# ------------------------------------------------------------------------------------------------ the README

NUMBER = re.compile(r"\d ?%|\d ?dB\b|\d times\b|\b\d[\d.,]* (?:s|seconds|minutes|hours|images/s)\b|\bp [<=] 0")


def _claims(text: str) -> list[str]:
    """The paragraphs and table rows that hold a measured number."""
    text = re.sub(r"^\[[^\]]+\]: .*$", "", _without_code(text), flags=re.M)
    blocks = [block for part in text.split("\n\n") for block in (part.split("\n") if part.startswith("|") else [part])]
    return [block for block in blocks if NUMBER.search(block)]


def _entry(target: str) -> str:
    """The text of the log entry that a link points to."""
    name, _, anchor = target.partition("#")
    assert re.fullmatch(r"docs/log/\d{4}-\w+\.md", name), target
    (entry,) = (part for part in re.split(r"^## ", _read(name), flags=re.M)[1:] if _slug(part.split("\n")[0]) == anchor)
    return entry


def test_every_claim_with_a_number_links_to_its_log_entry() -> None:
    labels = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, flags=re.M))
    claims = _claims(README)
    assert len(claims) >= 8
    for claim in claims:
        targets = [labels[label] for label in re.findall(r"\[log\]\[(\w+)\]", claim)]
        assert targets, f"no log entry: {claim}"
        entries = " ".join(_entry(target) for target in targets)
        for number in re.findall(r"\d[\d.]*(?= ?(?:%|dB))", claim):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", entries), f"{number} is in no {targets}"


MEASURED = [page for page in PAGES if page.startswith(("docs/how-to/", "docs/explanation/")) and _claims(_read(page))]


@pytest.mark.parametrize("page", MEASURED)
def test_a_page_with_measured_numbers_links_to_the_log(page: str) -> None:
    assert any(link.startswith("../log/") for link in _links(_read(page)))


@pytest.mark.parametrize(
    ("text", "number"),
    [("It solves 98.8 % of them.", 1), ("| x | 31.6 dB |", 1), ("in 12 times 512", 1), ("224x224 images", 0)],
)
def test_what_counts_as_a_claim(text: str, number: int) -> None:
    assert len(_claims(text)) == number


def test_the_readme_is_short_and_its_images_are_small() -> None:
    assert len(README.split()) <= 1100
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert images
    assert all((ROOT / image).stat().st_size <= 300_000 for image in {*images, *DOCS.glob("img/*.png")})


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(_read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == trm_nb.__version__


def _snippet(folder: Path) -> str:
    """The README's program, with its paths inside `folder` and settings that finish in seconds."""
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "build(config)" in block)
    sources = make_sources(folder)
    code = code.replace('["data/arc/", "data/text/"]', f"[{str(sources / 'tasks')!r}, {str(sources / 'code')!r}]")
    code = code.replace('"datasets/vision_unified"', repr(str(folder / "out")))
    changed = code.replace("include_grids=True)", "include_grids=True, encoder='tiny', batch_size=20)")
    assert changed != code
    return changed


@pytest.mark.parametrize("how", ["from a file", pytest.param("from standard input", marks=pytest.mark.slow)])
def test_the_snippet_runs_as_it_stands(tmp_path: Path, how: str) -> None:
    code = _snippet(tmp_path)
    (tmp_path / "script.py").write_text(code)
    arguments = [sys.executable, "script.py"] if how == "from a file" else [sys.executable]
    done = subprocess.run(
        arguments,
        input=code if how != "from a file" else None,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    batches, samples, _ = done.stdout.split()
    assert int(samples) >= 60, "few samples need no processes, and those are what the main guard is about"
    assert int(batches) == -(-int(samples) // 20)


# ------------------------------------------------------------------------------------------- the command line


def _commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {child}".strip())


COMMANDS = dict(_commands(typer.main.get_command(app)))


def test_the_table_of_commands_is_complete(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    table = _read("docs/reference/commands.md")
    named = set(re.findall(r"`(?:trm-nb )?((?:cache )?[a-z-]+)(?: [A-Z][^`]*)?`", table.split("<!--")[0]))
    assert {name for name in COMMANDS if name not in ("", "cache")} <= named
    code = "import sys; from trm_nb.cli.main import main; sys.argv[1:] = ['cache', 'clear', '--help']; main()"
    assert run_python(code).returncode == 0


def _command_lines() -> list[tuple[str, str]]:
    """Every command line in a `console` block, with its page; what follows two spaces and # is a comment."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```$", _read(page), flags=re.S | re.M):
            lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
            found += [(page, re.split(r"\s+#", line)[0]) for line in lines]
    return found


def _check_trm_nb(words: list[str]) -> None:
    """The command exists, and its options and the fields that -p names."""
    depth = 2 if words[0] == "cache" else 1
    command = COMMANDS[" ".join(words[:depth])]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        assert not word.startswith("-") or word in options, word
        assert word != "-p" or following.partition("=")[0] in MultimodalDatasetConfig.model_fields, following


@pytest.mark.parametrize(("page", "line"), _command_lines())
def test_command_lines_have_known_commands_options_and_fields(page: str, line: str) -> None:
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    if words[:1] == ["torchrun"]:
        words = ["trm-nb", *words[words.index("trm_nb.cli") + 1 :]]
    if words[0] == "trm-nb":
        _check_trm_nb(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", _read("Makefile"), flags=re.M)
    elif words[0] == "python":
        source = Path(words[1]) if words[1] != "-m" else Path(words[2].replace(".", "/") + ".py")
        text = (ROOT / source).read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in words if word.startswith("--")), line
    else:
        assert words[0] in ("pip", "cd", "cp", "dask", "papermill"), line


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    text = _without_code(_read(page)) if not page.startswith("docs/log/") and page != "CHANGELOG.md" else ""
    for name in re.findall(r"`trm-nb ([a-z][a-z-]*)", text):
        assert name in COMMANDS, name


# --------------------------------------------------------------------------------------------- the reference


def test_every_public_name_is_in_the_reference() -> None:
    described = set(re.findall(r"^\.\. auto\w+:: trm_nb\.(\w+)$", _read("docs/reference/api.md"), flags=re.M))
    assert set(trm_nb.__all__) <= described


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(DOCS))
    import generated

    return generated


def test_every_config_field_is_in_the_reference_below_its_stage(generated: Any) -> None:
    sections = re.split(r"^## Stage `(\w+)`$", generated.config_fields(), flags=re.M)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    for name, field in MultimodalDatasetConfig.model_fields.items():
        assert f"| `{name}` | " in found[stage_of(name)]
        assert str(field.description).replace("|", "\\|") in found[stage_of(name)], name
    assert "<!-- config fields -->" in _read("docs/reference/config.md")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("seed", "| `int` | `0` |"),
        ("denoiser", "| `base`, `large` | `base` |"),
        ("limit", "| `int` or `null` | `null` |"),
        ("include_text", "| `true`, `false` | `true` |"),
        ("source_paths", "| list of `str` | required |"),
    ],
)
def test_types_and_defaults_of_fields(generated: Any, field: str, expected: str) -> None:
    assert f"| `{field}` {expected}" in generated.config_fields()


# -------------------------------------------------------------------------------------------- code in the pages


def _blocks(page: str) -> list[tuple[bool, str]]:
    """The Python blocks of a page, and whether each is to be executed."""
    found = re.findall(rf"({NOT_RUN}[^\n]+-->\n\n?)?^```python\n(.*?)^```$", _read(page), flags=re.S | re.M)
    return [(not marked, code) for marked, code in found]


IN_OTHER_TESTS = ("README.md", "CONTRIBUTING.md")  # the snippet above; test_encoders, test_objectives, test_modalities
WITH_CODE = [page for page in PAGES if page not in IN_OTHER_TESTS and _blocks(page)]


@pytest.mark.parametrize("page", [*WITH_CODE, *IN_OTHER_TESTS])
def test_python_in_the_pages_compiles(page: str) -> None:
    for _, code in _blocks(page):
        compile(code, page, "exec")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with what the pages take for granted: a finished run, a photograph."""
    from conftest import PHOTO

    from trm_nb.batch.project import new_project
    from trm_nb.params import load_params

    folder = tmp_path_factory.mktemp("docs") / "project"
    new_project(folder)
    shutil.copy(PHOTO, folder / "photo.jpg")
    trm_nb.build(load_params(folder / "params/smoke.yaml").with_changes(limit=3))
    (folder / "outputs/demo").symlink_to(folder / "outputs/smoke")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_CODE if any(run for run, _ in _blocks(page))])
def test_python_in_the_pages_runs(project: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    with contextlib.suppress(ImportError):  # this user's cache is not filled
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", project / "cache")
    names: dict[str, Any] = {"__name__": "a page of the documentation"}
    for run, code in _blocks(page):
        if run:
            exec(compile(code, page, "exec"), names)


# ------------------------------------------------------------------------------------------------- the site


@pytest.mark.slow
def test_the_site_has_no_warning_and_every_name(tmp_path: Path) -> None:
    for name in ("docs", "LOG.md", "CONTRIBUTING.md", "CHANGELOG.md", "trm_nb/assets/checkpoints/README.md"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("_build", "_notebooks")
        shutil.copytree(ROOT / name, target, ignore=ignore) if (ROOT / name).is_dir() else shutil.copy(
            ROOT / name, target
        )
    notebooks = tmp_path / "outputs/demo/notebooks"  # notebooks without outputs stand for executed ones
    notebooks.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/03_encode.ipynb", notebooks)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        tmp_path / "docs",
        tmp_path / "site",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    api = (tmp_path / "site/reference/api.html").read_text(encoding="utf-8")
    fields = (tmp_path / "site/reference/config.html").read_text(encoding="utf-8")
    assert not [name for name in trm_nb.__all__ if f">{name}</span>" not in api]
    assert not [name for name in MultimodalDatasetConfig.model_fields if f">{name}</span>" not in fields]
    assert (tmp_path / "site/_notebooks/03_encode.html").is_file()
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", page.read_text(encoding="utf-8")), page

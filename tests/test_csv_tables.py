"""CSV files as spreadsheets and programs write them: separators, line ends, headers."""

from __future__ import annotations

from pathlib import Path

import pytest

from trm_nb.sources.byte_streams import RefusedError
from trm_nb.sources.tables import csv_files
from trm_nb.sources.tables.csv_files import csv_columns, csv_rows
from trm_nb.sources.tables.lines import BadRow, Row

ROWS = [["hello", "a"], ["world, ok; yes\tno|", "b"]]


def read(path: Path) -> list[list[str]]:
    rows = [row for row in csv_rows(path) if isinstance(row, Row)]
    return [list(row.values.values()) for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("begin", ["", "\n\n", "sep={}\n", '"SEP={}"\n'], ids=["header", "blank", "sep", "quoted sep"])
def test_separators_line_ends_and_encodings(tmp_path: Path, separator: str, begin: str) -> None:
    lines = [["text", "läbel"], *([f'"{cell}"' for cell in row] for row in ROWS)]
    text = begin.format(separator) + "".join(separator.join(line) + "\n" for line in lines)
    path = tmp_path / "t.csv"
    for end in ("\n", "\r\n", "\r", "\r\r\n"):
        for codec in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
            path.write_bytes(text.replace("\n", end).encode(codec))
            assert csv_columns(path) == ["text", "läbel"], (end, codec)
            assert read(path) == ROWS, (end, codec)


@pytest.mark.parametrize(
    ("text", "header", "rows"),
    [
        pytest.param('a, b\n1, 2\n"x, y", "z"\n', ["a", "b"], [["1", "2"], ["x, y", "z"]], id="spaces"),
        pytest.param("a,b, c\n1, 2,3\n", ["a", "b", " c"], [["1", " 2", "3"]], id="spaces behind some"),
        pytest.param("a;b\n1,5;2\n", ["a", "b"], [["1,5", "2"]], id="decimal commas"),
        pytest.param("a;b, c\n1;2\n3;4\n", ["a", "b, c"], [["1", "2"], ["3", "4"]], id="a comma in the header"),
        pytest.param('a,"b;c"\n1,2\n', ["a", "b;c"], [["1", "2"]], id="a quoted semicolon in the header"),
        pytest.param("a\n1; 2\n3\n", ["a"], [["1; 2"], ["3"]], id="one column"),
        pytest.param("sep=\n1,2\n", ["sep="], [], id="sep as a name"),
        pytest.param('a;b\r"1\r2";3\r', ["a", "b"], [["1\n2", "3"]], id="cr in a cell"),
        pytest.param('a,b\n"1\r2",3\n', ["a", "b"], [["1\r2", "3"]], id="cr in a cell of other lines"),
        pytest.param(",a,b,b,\n1,2,3,4,5\n", ["", "a", "b", "b", ""], [["5", "2", "4"]], id="unnamed and doubled"),
        pytest.param("a,b\n" + "1;2;3,4\n" * 9, ["a", "b"], [["1;2;3", "4"]] * 9, id="more semicolons than commas"),
    ],
)
def test_headers(tmp_path: Path, text: str, header: list[str], rows: list[list[str]]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert csv_columns(path) == header
    assert read(path) == rows


def test_the_separator_follows_from_the_beginning_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_SAMPLE", 100)
    path = tmp_path / "t.csv"
    path.write_text("a,b;c\n" + "1,2\n" * 50 + "1;2\n" * 500)
    assert csv_columns(path) == ["a", "b;c"]
    assert sum(isinstance(row, BadRow) for row in csv_rows(path)) == 500


@pytest.mark.parametrize("text", ["", "\n\n", "sep=;\n"], ids=["empty", "blank lines", "sep alone"])
def test_no_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RefusedError, match="a table without rows"):
        csv_columns(tmp_path / "t.csv")

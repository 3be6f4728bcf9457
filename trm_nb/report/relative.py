"""Folders in a report's texts: relative to the run or to the project, and never absolute.

A report is mailed to people who have other folders, and whose business the author's folders are not. Known folders
(the run, the project, the package, the environment, the home) are cut off; of any other absolute path the last name
stays. Works on text, so that HTML, tracebacks and parameters are all covered; embedded images are left alone.
"""

from __future__ import annotations

import json
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from trm_nb.params import project_root

_EMBEDDED = r"data:image/\w+;base64,[A-Za-z0-9+/=]+"
_PART = r"[^\s/\\<>\"'`|:*?&;,)\]}]+"
_ABSOLUTE = re.compile(
    rf"(?P<embedded>{_EMBEDDED})"
    rf"|(?<![\w.~/:<…\\*])(?:file://)?/(?:{_PART}/)+(?P<posix>{_PART})?"
    rf"|(?<![\w\\])[A-Za-z]:\\(?:{_PART}\\)*(?P<windows>{_PART})?"
)


class Relative:
    """Makes the folders in texts relative.

    Args:
        run: the folder of the run, or of whatever the report is about.
    """

    def __init__(self, run: Path) -> None:
        run = run.resolve()
        project = project_root(run) or project_root(Path.cwd())
        known = [(run.parent, run.name)] if project is None or not run.is_relative_to(project) else []
        known += [] if project is None else [(project, "")]
        known += [(Path(sys.prefix), "…"), (Path(sys.base_prefix), "…"), (Path(__file__).parents[2], "")]
        prefixes = {f"{folder}/": "" if folder == run.parent or not end else f"{end}/" for folder, end in known}
        both = {**prefixes, **{escape(prefix): end for prefix, end in prefixes.items()}}
        self._known = sorted(((p, end) for p, end in both.items() if p.count("/") > 2), key=lambda one: -len(one[0]))

    def text(self, text: str) -> str:
        """A text, HTML or not, without absolute paths."""
        if "/" not in text and "\\" not in text:
            return text
        for prefix, end in self._known:
            text = re.sub(rf"(?<![\w.]){re.escape(prefix)}", end, text)
        return _ABSOLUTE.sub(_shortened, text)

    def value(self, value: Any) -> str:
        """A setting's value as text: JSON, a string as it is."""
        return self.text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))

    def notebook(self, notebook: dict[str, Any]) -> None:
        """Change all texts of a notebook's cells, in place."""
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["source"] = self.text(cell["source"])
            for output in cell["outputs"]:
                for name in ("text", "ename", "evalue"):
                    if name in output:
                        output[name] = self.text(str(output[name]))
                if "traceback" in output:
                    output["traceback"] = [self.text(str(line)) for line in output["traceback"]]
                data = output.get("data") or {}
                data.update({kind: self.text(text) for kind, text in data.items() if kind.startswith("text/")})


def _shortened(match: re.Match[str]) -> str:
    if match["embedded"]:
        return match[0]
    name = match["posix"] or match["windows"] or ""
    return f"…/{name}" if name else "…"

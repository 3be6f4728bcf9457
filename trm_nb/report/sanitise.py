"""What of a notebook may stand in a report: an explicit allow-list, and nothing that runs or that fetches.

The data is hostile: a caption, a file name or an exception's message may hold markup. Each output is cleaned on its own
(so it cannot close the page's elements), and the finished body once more. Widgets, JavaScript, SVG and LaTeX
outputs are dropped; images must be PNG or JPEG in base64; links lead inside the report only.
"""

from __future__ import annotations

import re
from typing import Any

import nh3

_SHOWN = ("text/html", "text/markdown", "image/png", "image/jpeg", "text/plain")
_LIVE = re.compile(
    r"application/vnd\.jupyter\.widget|application/javascript|application/vnd\.bokeh|application/vnd\.plotly"
)
_IMAGE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]+")
_IMG = re.compile(r'<img((?:\s+[\w-]+="[^"]*")*)\s*/?>')  # as nh3 writes it: every value quoted, quotes in it escaped
_PROGRESS, _EMPTY = '<div class="trm-progress"', '<table class="trm-table trm-empty"'
_SIBLING = re.compile(r"([0-9]{2}_\w+)\.(?:ipynb|html)(#[\w.-]*)?")
_MARKUP = {
    "a", "b", "blockquote", "br", "caption", "code", "dd", "del", "div", "dl", "dt", "em", "figcaption", "figure", "h1",
    "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s", "small", "span", "strong",
    "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
}  # fmt: skip
_CLASSES = {
    "div": {"trm-progress", "trm-note", "trm-tiles", "trm-large", "highlight"},
    "figure": {"trm-gallery", "trm-same", "trm-query"},
    "table": {"trm-bars", "trm-table", "trm-empty"},
    "td": {"number"},
    "th": {"number"},
}
_NAMED = {
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
}


def _attribute(tag: str, name: str, value: str) -> str | None:
    if (tag, name) == ("img", "src"):
        return value if _IMAGE.fullmatch(value) else None
    if (tag, name) == ("a", "href"):
        sibling = _SIBLING.fullmatch(value)
        if sibling:
            return f"{sibling[1]}.html{sibling[2] or ''}"
        return value if value.startswith("#") else None
    return value


_piece = nh3.Cleaner(
    tags=_MARKUP,
    clean_content_tags={"script", "style"},
    attributes=_NAMED,
    allowed_classes=_CLASSES,
    attribute_filter=_attribute,
    url_schemes={"data"},
    link_rel=None,
)
_code = nh3.Cleaner(tags={"div", "pre", "span"}, attributes={"div": {"class"}, "span": {"class"}}, link_rel=None)
_body = nh3.Cleaner(
    tags=_MARKUP | {"details", "summary", "section"},
    clean_content_tags={"script", "style"},
    attributes={
        **_NAMED,
        "*": {"class", "id"},
        "details": {"open"},
        "pre": {"tabindex"},
        "div": {"tabindex"},
        "a": {"href", "aria-label"},
    },
    attribute_filter=_attribute,
    url_schemes={"data"},
    link_rel=None,
)


def clean_piece(html: str) -> str:
    """An output or a Markdown cell as harmless HTML: no ids, styles, scripts or foreign addresses."""
    return _IMG.sub(_whole_image, _piece.clean(html))


def _whole_image(match: re.Match[str]) -> str:
    named = dict(re.findall(r'([\w-]+)="([^"]*)"', match[1]))
    if not named.get("src"):
        return ""  # its address was a foreign one
    return match[0] if "alt" in named else f'<img{match[1]} alt="Image in an output, not described">'


def clean_code(html: str) -> str:
    """Highlighted code, or text with colours: spans with classes and nothing else."""
    return _code.clean(html)


def clean_body(html: str) -> str:
    """A report's whole body, put together of clean pieces."""
    return _body.clean(html)


def only_what_is_shown(notebook: dict[str, Any]) -> None:
    """Drop, in place, what a report never shows: live outputs as a whole, and every form but the best allowed one.

    Progress snapshots go too (a report has one, on its index), and outputs that say that there is nothing to show.
    Texts, which a notebook's file holds as a string or as a list of lines, become strings.
    """
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell.pop("attachments", None)
        cell["source"] = _joined(cell["source"])
        cell["outputs"] = [output for output in cell.get("outputs", []) if _keep(output)]


def _keep(output: dict[str, Any]) -> bool:
    if "text" in output:
        output["text"] = _joined(output["text"])
    data = output.get("data")
    if data is None:
        return True
    live = any(_LIVE.match(name) for name in data)
    best = next((name for name in _SHOWN if name in data), None)
    if best is None or (live and best == "text/plain"):  # a widget's text is its constructor, frozen at zero
        return False
    output["data"] = {best: _joined(data[best])}
    return not _says_nothing(output, best)


def _says_nothing(output: dict[str, Any], kind: str) -> bool:
    """Whether an output is a progress snapshot, a table without rows, or says only that there is nothing to show."""
    noted = (output.get("metadata") or {}).get(kind)
    nothing = isinstance(noted, dict) and noted.get("nothing") is True
    return nothing or (kind == "text/html" and output["data"][kind].lstrip().startswith((_PROGRESS, _EMPTY)))


def _joined(text: Any) -> str:
    return text if isinstance(text, str) else "".join(text)

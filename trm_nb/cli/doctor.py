"""`trm-nb doctor`: what is installed, what the machine has, where the project is, and every config field."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from trm_nb._version import __version__
from trm_nb.config import MultimodalDatasetConfig, stage_of
from trm_nb.params import project_root

_OPTIONAL = {"distributed": "for `cluster`, Dask workers", "pypdfium2": "for PDF documents"}


def examine() -> int:
    """Print the examination; returns 1 when something that is needed is missing, else 0."""
    missing = []
    print(f"trm-nb {__version__} in {Path(__file__).parents[1]}")
    print(f"Python {platform.python_version()} ({sys.executable}) on {platform.platform()}\n")
    for name in required():
        version = _version(name)
        if version is None:
            missing.append(name)
        print(f"  {name:20} {version or 'MISSING'}")
    for name, use in _OPTIONAL.items():
        print(f"  {name:20} {_version(name) or f'not installed (optional, {use}): pip install {name}'}")
    print()
    for name, value in machine():
        print(f"  {name:20} {value}")
    print("\nConfig fields (a params file is these as YAML; `-p field=value` overrides):\n")
    for name, field in MultimodalDatasetConfig.model_fields.items():
        default = "required" if field.is_required() else repr(field.default)
        print(f"  {name:22} {default:14} {field.description} [{stage_of(name)}]")
    if missing:
        print(f"\nmissing: pip install {' '.join(missing)}")
    return 1 if missing else 0


def required() -> list[str]:
    """The packages that this one asks for, by name."""
    try:
        lines = importlib.metadata.requires("trm-nb") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def machine() -> Iterator[tuple[str, str]]:
    """Cores, memory, devices, disk and the project's root, as pairs of name and value."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cores", f"{usable} usable of {os.cpu_count()}"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB"
    yield "devices", ", ".join(_devices())
    usage = shutil.disk_usage(Path.cwd())
    yield "disk here", f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB"
    root = project_root(Path.cwd())
    yield "project", str(root) if root else f"none at or above {Path.cwd()} (a folder with notebooks/ and params/)"


def _devices() -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return ["none: torch is missing"]
    import torch

    found = ["cpu"]
    found += [f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(torch.cuda.device_count())]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

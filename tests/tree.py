"""The checkout as a house test sees it: which files are the project's own, and what stands in them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_GENERATED = {"__pycache__", "build", "coverage.json", "dist", "node_modules"}
_HIDDEN_BUT_OURS = {".ci", ".gitignore", ".dockerignore"}


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if (path.name.startswith(".") and path.name not in _HIDDEN_BUT_OURS) or path.name in _GENERATED:
            continue
        if path.is_dir() and not path.name.endswith(".egg-info"):
            yield from _walk(path)
        elif path.is_file():
            yield path


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project, whether or not git knows it yet; nothing generated, nothing hidden but our own."""
    return tuple(_walk(ROOT))


def name(path: Path) -> str:
    """Return a path as people write it: from the checkout on, with slashes."""
    return path.relative_to(ROOT).as_posix()


def text(path: Path) -> str:
    """Return a file's text; empty where it holds none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file, parsed."""

    path: Path
    source: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Where it lies."""
        return name(self.path)


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the project: modules, tests, and the scripts that say so in their first line."""
    found = []
    for path in files():
        source = text(path)
        if path.suffix == ".py" or source.startswith("#!/usr/bin/env python3"):
            found.append(Module(path, source, ast.parse(source, filename=str(path))))
    return tuple(found)


def package_modules(folder: str) -> list[Module]:
    """Return the modules below a folder such as `proxy/core`; an empty folder would make a test that cannot fail."""
    found = [module for module in modules() if module.name.startswith(f"{folder}/")]
    assert found, f"there is no module below {folder}/"
    return found

"""The generated pages: the tree of consulted facts and the tables still say what the rules do.

A difference in `core/golden/liveness.txt` is a change of behaviour. Run scripts/liveness-docs and read what it changed.
"""

import re
import subprocess
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from proxy.core.liveness_rules import RULES, Gives
from proxy.core.presets import Preset

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "liveness-docs"
GOLDEN = ROOT / "tests" / "core" / "golden" / "liveness.txt"


@cache
def script() -> ModuleType:
    """Return the script as a module; it has no ending, so that it must be loaded by hand."""
    loader = SourceFileLoader("liveness_docs", str(SCRIPT))
    spec = spec_from_loader("liveness_docs", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["liveness_docs"] = module
    loader.exec_module(module)
    return module


@cache
def wanted() -> dict[Path, str]:
    """Return what the generated files should hold."""
    found: dict[Path, str] = script().wanted()
    return found


def lines() -> list[str]:
    return [line for line in GOLDEN.read_text("utf-8").splitlines() if " -> " in line]


@pytest.mark.parametrize("name", ["docs/liveness.md", "proxy/core/liveness.py", "tests/core/golden/liveness.txt"])
def test_a_generated_file_says_what_the_rules_say(name: str) -> None:
    path = ROOT / name
    assert path.read_text("utf-8") == wanted()[path], f"{name} differs from the rules: run scripts/liveness-docs"


def test_check_names_the_file_that_differs_and_changes_nothing(tmp_path: Path) -> None:
    for name in ("scripts/liveness-docs", "docs/liveness.md", "tests/core/golden/liveness.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    core = tmp_path / "proxy" / "core"
    core.mkdir(parents=True)
    for name in ("evidence", "presets", "liveness_case", "liveness_rules", "liveness"):
        (core / f"{name}.py").write_bytes((ROOT / "proxy" / "core" / f"{name}.py").read_bytes())
    presets = core / "presets.py"
    presets.write_text(
        presets.read_text("utf-8").replace("recent_heartbeat: float = 15.0", "recent_heartbeat: float = 16.0")
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = [sys.executable, "-B", str(tmp_path / "scripts" / "liveness-docs"), "--check"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert done.returncode == 1, done.stderr
    assert re.findall(r"^(\S+): differs", done.stdout, re.MULTILINE) == [
        "docs/liveness.md",
        "proxy/core/liveness.py",
        "tests/core/golden/liveness.txt",
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_tree_stands_on_both_sides_of_every_boundary() -> None:
    text = "\n".join(lines())
    for fact, limits in {
        "announced": (60,),
        "started": (30, 60, 600),
        "returned": (30, 60),
        "sign1": (15, 600),
        "first_strike": (30,),
    }.items():
        seen = {value for values in re.findall(rf"\b{fact}=([^,]*?)(?:,| ->)", text) for value in values.split("|")}
        for limit in limits:
            assert {f"{limit - 0.001:.3f}", f"{limit:.3f}", f"{limit + 0.001:.3f}"} <= seen, (fact, limit)


@pytest.mark.parametrize("preset", list(Preset))
def test_every_rule_is_reached_by_a_path_and_no_path_is_there_twice(preset: Preset) -> None:
    section = GOLDEN.read_text("utf-8").split(f"[{preset}]")[1].split("\n[")[0]
    paths = [line.split(" -> ") for line in section.splitlines() if " -> " in line]
    assert len({path for path, _ in paths}) == len(paths)
    reached = {tuple(leaf.split()[:2]) for _, leaf in paths}
    rules = [(rule.answer, rule.name) for rule in RULES[preset] if isinstance(rule.answer, Gives)]
    assert reached == {(answer.verdict.name.upper(), name) for answer, name in rules}


def test_no_path_of_the_tree_infers_a_death_from_a_probe_that_failed_or_a_recent_sign() -> None:
    deaths = [line for line in lines() if "-> DEAD not_running" in line]
    assert len(deaths) > 50
    for line in deaths:
        assert not re.search(r"probe\d=(error|running)", line)
        assert not re.search(r"sign1=[^,]*\b(14\.999|15\.000)\b", line)

"""The documents say what the code does: every name that a page must mention is mentioned, every link leads somewhere.

Each test names everything that is missing at once. The rules about code are in `test_house.py`.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import pytest
from tree import ROOT, files, name, package_modules, text

from proxy import probes, runtimes
from proxy.core import deferral, evidence, lifecycle, liveness, outcome, presets, restart, workspace
from proxy.settings import SETTINGS

DOCS = ROOT / "docs"
PAGES = [path for path in files() if path.suffix == ".md"]


def broken(found: Iterable[str]) -> str:
    return "\n  ".join(["", *found])


def headings(page: Path) -> list[str]:
    without_code = re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+\s+(.+?)\s*$", without_code, re.MULTILINE)


def anchor(heading: str) -> str:
    """Return a heading's anchor as the common renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


# --- pages and links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            found.append(f"{target}: no such file")
        elif fragment and fragment not in {anchor(heading) for heading in headings(there)}:
            found.append(f"{target}: no such heading")
    assert not found, broken(found)


def test_the_index_leads_to_every_page() -> None:
    index = text(DOCS / "index.md")
    pages = [path.relative_to(DOCS).as_posix() for path in PAGES if path.is_relative_to(DOCS)]
    found = [page for page in pages if page != "index.md" and f"]({page})" not in index]
    assert not found, broken(found)


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted((DOCS / "decisions").glob("[0-9]*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


# --- the map ---------------------------------------------------------------------------------------------------------


def test_every_path_on_the_map_exists() -> None:
    named = re.findall(r"`([\w./-]+)`", text(DOCS / "map.md"))
    paths = [path for path in named if "/" in path or (ROOT / path).exists() or path.endswith((".py", ".md"))]
    assert len(paths) > 50
    found = [path for path in paths if not (ROOT / path).exists()]
    assert not found, broken(found)


def test_every_folder_of_the_proxy_is_on_the_map() -> None:
    page = text(DOCS / "map.md")
    folders = {name(module.path.parent) for module in package_modules("proxy")} - {"proxy"}
    found = sorted(folder for folder in folders if f"`{folder}/" not in page)
    assert not found, broken(found)


# --- scenarios -------------------------------------------------------------------------------------------------------

SCENARIO = re.compile(r"^(?P<number>\d+)\. (?P<mark>\*\(not yet\)\* )?\S", re.MULTILINE)
IN_A_TEST = re.compile(r"scenario_(\d+)")


def described() -> dict[int, bool]:
    """Return each scenario's number, and whether it is marked as not yet."""
    return {int(found["number"]): found["mark"] is not None for found in SCENARIO.finditer(text(DOCS / "scenarios.md"))}


def carried() -> dict[int, str]:
    """Return the numbers that tests carry, each with a file that does."""
    return {
        int(number): module.name
        for module in package_modules("tests")
        if module.path.name != Path(__file__).name
        for number in IN_A_TEST.findall(module.source)
    }


def test_scenarios_are_numbered_without_a_gap() -> None:
    assert list(described()) == list(range(1, 96))


def test_every_scenario_that_a_test_carries_is_described() -> None:
    found = [f"{where}: scenario_{number:02}" for number, where in carried().items() if number not in described()]
    assert not found, broken(found)


def test_a_scenario_is_marked_as_not_yet_exactly_while_no_test_carries_it() -> None:
    found = [
        f"{number}: {f'has a test in {carried()[number]}; take its mark away' if later else 'has no test; mark it'}"
        for number, later in described().items()
        if later is (number in carried())
    ]
    assert not found, broken(found)


# --- names that pages must hold --------------------------------------------------------------------------------------


def test_every_setting_is_on_the_configuration_page() -> None:
    assert len(SETTINGS) > 20
    page = text(DOCS / "configuration.md")
    found = [key for key in SETTINGS if f"`{key}`" not in page]
    assert not found, broken(found)


def test_the_configuration_page_names_no_setting_that_does_not_exist() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|", text(DOCS / "configuration.md"), re.MULTILINE)
    found = [key for key in rows if key not in SETTINGS]
    assert rows
    assert not found, broken(found)


@pytest.mark.parametrize(("page", "names"), [("runtimes", runtimes.names()), ("probes", probes.names())])
def test_every_runtime_and_every_probe_has_a_heading(page: str, names: list[str]) -> None:
    assert names
    there = {heading.strip("`") for heading in headings(DOCS / f"{page}.md")}
    found = [one for one in names if one not in there]
    assert not found, broken(found)


VOCABULARIES: list[type[StrEnum]] = [
    lifecycle.Status,
    lifecycle.Desired,
    lifecycle.Lifecycle,
    deferral.State,
    evidence.ProbeState,
    outcome.Outcome,
    outcome.DeadAction,
    outcome.UnmanagedAway,
    outcome.Redelivery,
    restart.Answer,
    restart.Phase,
    presets.Preset,
    workspace.DeliveryMode,
]


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.__name__)
def test_every_word_of_a_vocabulary_is_in_the_glossary(vocabulary: type[StrEnum]) -> None:
    said = set(re.findall(r"[a-z][a-z_-]*", text(DOCS / "glossary.md")))
    found = [word.value for word in vocabulary if word.value not in said]
    assert not found, broken(found)


def test_a_word_stands_once_in_the_glossary() -> None:
    words = re.findall(r"^\| (?!word )([^|-][^|]*?) \|", text(DOCS / "glossary.md"), re.MULTILINE)
    assert len(words) > 50
    assert len(words) == len(set(words))


def test_dead_is_decided_where_the_map_says() -> None:
    row = next(line for line in text(DOCS / "map.md").splitlines() if 'Where is "dead" decided?' in line)
    assert f"`{liveness.judge.__name__}()` in `{liveness.judge.__module__.replace('.', '/')}.py`" in row


# --- drawings --------------------------------------------------------------------------------------------------------


def arrows(drawing: str) -> set[tuple[str, str, frozenset[str]]]:
    """Return what a mermaid state diagram on the lifecycle page shows: source, target, labels; ends left out."""
    page = text(DOCS / "lifecycle.md")
    body = page.split(f"<!-- drawn: {drawing} -->", 1)[1].split("<!-- end of drawing -->", 1)[0]
    found = re.findall(r"^\s+([a-z_]+) --> ([a-z_]+)(?:: (.+))?$", body, re.MULTILINE)
    return {(source, target, frozenset(filter(None, label.split(", ")))) for source, target, label in found}


def test_the_states_of_a_workspace_are_drawn_as_they_are() -> None:
    edges = {(edge.source.value, edge.target.value): set[str]() for edge in lifecycle.EDGES}
    for edge in lifecycle.EDGES:
        edges[edge.source.value, edge.target.value] |= {cause.value for cause in edge.causes}
    assert arrows("status") == {(*pair, frozenset(causes)) for pair, causes in edges.items()}


def test_the_states_of_a_deferral_are_drawn_as_they_are() -> None:
    assert arrows("deferral") == {(source.value, target.value, frozenset()) for source, target in deferral.EDGES}

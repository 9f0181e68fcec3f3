"""Events are told somewhere, by the words of the vocabulary, and the page about them says the same."""

import ast
import re

from tree import ROOT, package_modules, text

from proxy.telemetry import EventName

ONLY_COUNT = {"proxy/telemetry.py", "proxy/web/metrics.py", "proxy/loops/traffic.py"}
"""What speaks of events without emitting any; telemetry itself emits what libraries log."""
PAGE = text(ROOT / "docs" / "events.md")
SECTION = re.compile(r"^### `([a-z._]+)`\n\n\*(\w+)\* · (.+)$", re.MULTILINE)


def spoken_of() -> set[str]:
    """The members of the vocabulary that some module names outside the places that only count."""
    return {
        node.attr
        for module in package_modules("proxy")
        if module.name not in ONLY_COUNT
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "EventName"
    } | {"LIBRARY_LOGGED"}


def test_every_event_of_the_vocabulary_is_emitted_somewhere() -> None:
    never = {name.name for name in EventName} - spoken_of()
    assert not never, f"declared and never emitted: {sorted(never)}"


def test_the_page_has_a_heading_for_every_event_with_its_level_and_meaning_and_for_no_other() -> None:
    described = {name: (level, meaning) for name, level, meaning in SECTION.findall(PAGE)}
    declared = {str(name): (name.level.name.lower(), name.meaning) for name in EventName}
    assert described == declared


def test_the_page_describes_events_in_the_order_of_the_vocabulary() -> None:
    assert [name for name, _, _ in SECTION.findall(PAGE)] == [str(name) for name in EventName]

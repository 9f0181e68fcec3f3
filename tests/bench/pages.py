"""The command `scripts/bench page FILE...`: docs/performance.md from the journals of runs.

Owns: finding a bench's section of the page and replacing it.
Knows nothing of: what a section says (each bench's `page` does).

A section lies between `<!-- NAME: begin -->` and `<!-- NAME: end -->`; what stands around it is written by hand.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from bench.measuring import ROOT, chosen, read_journal, say

PAGE = ROOT / "docs" / "performance.md"


def main(arguments: Sequence[str], bench: Callable[[str], ModuleType]) -> int:
    """Replace the sections of the benches whose journals are given; the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench page", description="Write the tables of docs/performance.md.")
    parser.add_argument("journals", nargs="+", type=Path, metavar="FILE", help="what a bench wrote with --json")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to change")
    asked = parser.parse_args(arguments)
    text = asked.page.read_text(encoding="utf-8")
    for journal in asked.journals:
        try:
            records = read_journal(journal)
            name = str(chosen(records, "run")[0]["bench"])
            text = replaced(text, name, str(bench(name).page(records)))
        except (OSError, ValueError) as problem:
            parser.error(str(problem))
        say(f"bench: {asked.page.name}: {name} from {journal}")
    asked.page.write_text(text, encoding="utf-8")
    return 0


def replaced(text: str, name: str, section: str) -> str:
    """The page with another section of that name.

    Raises:
        ValueError: the page has no place for it.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no section {begin.strip()} ... {end.strip()}")
    return before + begin + section.strip("\n") + "\n" + end + after

"""The command: `scripts/bench NAME [options]`. Finds the bench of that name and lets it run.

Owns: which benches there are, the errors that every bench may end with.
Knows nothing of: what a bench measures. A bench is a module of this folder with two functions: `main(arguments)`
measures, prints a report and returns the exit code; `page(records)` makes its section of docs/performance.md, in
Markdown, from the lines that `measuring.Journal` wrote.

Exit codes: 0 it was measured, 1 something was lost or answered wrongly, 2 wrong usage, 3 it cannot run here.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from bench import pages
from bench.measuring import UnfitError, say

BENCHES = ("forward", "sse", "queue", "heartbeats")
WRONG_USAGE, ENVIRONMENT = 2, 3


def bench(name: str) -> ModuleType:
    """The module of a bench."""
    return importlib.import_module(f"bench.{name}")


def main(arguments: Sequence[str]) -> int:
    """Run one bench, or write the page; the exit code."""
    name = arguments[0] if arguments else ""
    if name == "page":
        return pages.main(arguments[1:], bench)
    if name not in BENCHES:
        say(f"usage: scripts/bench {'|'.join((*BENCHES, 'page'))} [options]; each takes --help")
        return WRONG_USAGE
    try:
        return int(bench(name).main(arguments[1:]))
    except UnfitError as problem:
        sys.stderr.write(f"bench: it cannot run here: {problem}\n")
    except KeyboardInterrupt:
        sys.stderr.write("bench: interrupted\n")
    return ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

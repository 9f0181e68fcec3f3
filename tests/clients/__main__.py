"""`scripts/clients`: show what A2A clients see while an agent is away, and write it into docs/a2a.md.

Owns: the command line, the places on the page.
Knows nothing of: what is shown (`exchanges`, `sdks`, `frameworks`).
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from clients import exchanges, frameworks, sdks
from clients.stage import Stage
from e2e.serving import ROOT

PAGE: Final = ROOT / "docs" / "a2a.md"
WHAT: Final = ("exchanges", "sdks", "frameworks")


async def captured(what: str, outage: float) -> dict[str, str]:
    """What is to stand on the page, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        async with Stage(place, "1.x") as stage:
            if what == "exchanges":
                texts = await exchanges.through_an_outage(stage)
                return {name: f"```http\n{text}\n```" for name, text in texts.items()}
            if what == "sdks":
                return {"sdks": await sdks.through_an_outage(stage, place)}
            got = await frameworks.through_an_outage(stage, outage)
    lines = [f"# an outage of {outage:.0f} s; what each framework's user gets, with the seconds since the question"]
    for one in got:
        _, package, kind = frameworks.FRAMEWORKS[one.framework]
        lines.append(f"\n{one.framework} ({package}: {kind})")
        lines += [f"{second:6.1f} s  {json.dumps(line, ensure_ascii=False)}" for second, line in one.lines]
    return {"frameworks": "```text\n" + "\n".join(lines) + "\n```"}


def written(page: str, texts: dict[str, str]) -> str:
    """The page with these texts in their places.

    Raises:
        LookupError: a text has no place.
    """
    for name, text in texts.items():
        begin, end = f"<!-- captured by scripts/clients: {name} -->", f"<!-- end of {name} -->"
        place = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if not place.search(page):
            raise LookupError(f"{PAGE.name} has no place for {name}")
        page = place.sub(lambda _, new=f"{begin}\n{text}\n{end}": new, page)  # type: ignore[misc]  # a bound default
    return page


def main(arguments: list[str]) -> int:
    """Run it; 0, or 1 with what went wrong on standard error."""
    options = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    options.add_argument("what", nargs="*", help=f"of {', '.join(WHAT)}; all of them without a word")
    options.add_argument("--outage", type=float, default=60.0, help="seconds of the frameworks' outage")
    options.add_argument("--write", action="store_true", help="into docs/a2a.md, instead of showing it")
    chosen = options.parse_args(arguments)
    for what in chosen.what or WHAT:
        if what not in WHAT:
            sys.stderr.write(f"scripts/clients: there is no {what}; there are {', '.join(WHAT)}\n")
            return 1
        texts = asyncio.run(captured(what, chosen.outage))
        if chosen.write:
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), texts), encoding="utf-8")
        else:
            for name, text in texts.items():
                sys.stdout.write(f"## {name}\n\n{text}\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The page for authors of clients says how many cells each situation has; it must not say more than is played."""

import re

from matrix.cells import PAIRINGS
from matrix.deeds import DEEDS
from matrix.situations import keys_of
from tree import ROOT, text


def test_the_page_counts_the_cells_of_every_situation() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", text(ROOT / "docs" / "a2a.md"), re.MULTILINE)
    assert {name: int(count) for name, count in rows} == {name: len(keys_of(PAIRINGS, name)) for name in DEEDS}

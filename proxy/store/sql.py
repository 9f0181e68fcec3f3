"""The catalogue of every SQL statement that runs while Holdfast runs: each named, described, written once.

Owns: the catalogue. Knows nothing of: drivers. The texts lie by concern in `store/statements/`, the schema in
`store/migrations/`, the units of work that use them in `store/units/`.
"""

from types import MappingProxyType
from typing import Final

from proxy.store.statements import (
    Statement,
    deferrals,
    delivery,
    instants,
    journal,
    log,
    pushes,
    task_lists,
    workspaces,
)


def _catalogue() -> dict[str, Statement]:
    found: dict[str, Statement] = {}
    for module in (workspaces, deferrals, delivery, task_lists, journal, pushes, log, instants):
        for statement in vars(module).values():
            if isinstance(statement, Statement):
                if statement.name in found:
                    raise ValueError(f"two statements are called {statement.name}")
                found[statement.name] = statement
    return found


CATALOGUE: Final = MappingProxyType(_catalogue())
"""Statements by name."""

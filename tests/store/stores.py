"""Every store that the conformance suite runs against, by name, and how a test gets one.

A store joins by one line in `STORES`: a function from an empty directory to a store that is not open yet.
"""

from collections.abc import Callable
from pathlib import Path

from proxy.store import Store
from proxy.store.memory import MemoryStore
from proxy.store.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite": lambda directory: SqliteStore(directory / "holdfast.db"),
}

"""Units of work: what one caller wants done, as a generator that yields statements and receives rows.

Owns: the shape of a unit. Knows nothing of: connections, transactions, threads.

Theory of operation. A unit yields `(statement, parameters)` and is sent the rows that came back; it returns its result.
It never commits: whoever runs it decides which units share a transaction. So one text serves every driver, and a driver
may run a batch of units on its own thread or connection. A unit is single-use: to try again, make a new one.

Parameters that are a list mean "for each of these". A statement that repeats is then run for many of them at once, and
the rows of all come back; another is run for one after the other, and no rows come back.

Much work comes in crowds of one kind. Where such units can share their statements, what makes them is a `Joinable`, and
whoever runs a batch may run neighbours of one kind as one unit. That unit does what they would have done one after the
other; where it fails, the batch is run again without joining.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from proxy.store.rows import Row, Value
from proxy.store.statements import Statement

T = TypeVar("T")

Params = Mapping[str, Value] | tuple[Value, ...]
"""By name, or as a tuple in the order of the statement's names."""
Step = tuple[Statement, Params | list[Params]]
Rows = list[Row]
Unit = Generator[Step, Rows, T]
MakeUnit = Callable[[], Unit[Any]]


class Joinable(ABC):
    """Makes a unit that can share its statements with others of its kind."""

    __slots__ = ()

    @abstractmethod
    def __call__(self) -> Unit[Any]:
        """Make a unit for this one alone."""

    @classmethod
    @abstractmethod
    def join(cls, crowd: Sequence[Any]) -> Unit[Sequence[Any]]:
        """Make a unit for several of this class; it returns their results in their order."""

"""Units of work: what one caller wants done, as a generator that yields statements and receives rows.

Owns: the shape of a unit. Knows nothing of: connections, transactions, threads.

Theory of operation. A unit yields `(statement, parameters)` and is sent the rows that came back; it returns its result.
It never commits: whoever runs it decides which units share a transaction. So one text serves every driver, and a driver
may run a batch of units on its own thread or connection. Parameters that are a list mean "run it for each of these";
then no rows come back. A unit is single-use: to try again, make a new one.
"""

from collections.abc import Generator, Mapping
from typing import TypeVar

from proxy.store.rows import Row, Value
from proxy.store.statements import Statement

T = TypeVar("T")

Params = Mapping[str, Value]
Step = tuple[Statement, Params | list[Params]]
Rows = list[Row]
Unit = Generator[Step, Rows, T]

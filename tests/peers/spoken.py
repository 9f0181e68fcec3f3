"""How a test talks to a client in another process: one line of JSON each way; the SDKs' types stay in there.

Owns: reading calls, running them side by side, telling events, ends and errors.
Knows nothing of: either SDK, proxies. It runs in environments in which nothing of this checkout is installed.

A call: `{"call": n, "at": "a", "do": "connect", ...}`, where `at` names one of many clients in there. What comes back,
each with its call: `{"event": {...}}` as often as there is something to tell, then `{"end": true}` or
`{"error": "CLASS: WORDS"}`.

| do          | with                                                    | events                                    |
| ----------- | ------------------------------------------------------- | ----------------------------------------- |
| `connect`   | url, token, binding                                     | the card                                  |
| `send`      | mode (`unary`, `now`, `stream`), text, message, task,   | what comes back                           |
|             | context, push                                           |                                           |
| `get`       | task                                                    | the task                                  |
| `cancel`    | task                                                    | the task                                  |
| `subscribe` | task                                                    | what comes back                           |
| `list`      | context                                                 | its tasks (v1.0 only)                     |
| `notify`    | task, push                                              | the receiver that was set                 |

`push` is a receiver of notifications: url, token, credentials. An event: `kind` (`card`, `task`, `status`,
`artifact`, `message`, `receiver`), `task`, `context`, `state` (as v0.3 writes it) and `text` (a receiver's is its URL).
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

Call = dict[str, Any]
Event = dict[str, Any]


def tell(**facts: Any) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


class Talking(Protocol):
    """A client of one card."""

    def do(self, call: Call) -> AsyncIterator[Event]:
        """One call."""
        ...


async def _serve(make: Callable[[], Talking]) -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running: set[asyncio.Task[None]] = set()
    clients: dict[str, Talking] = {}

    async def one(call: Call) -> None:
        try:
            if call["at"] not in clients:
                clients[call["at"]] = make()
            async for event in clients[call["at"]].do(call):
                tell(call=call["call"], event=event)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises is what the test wants to know
            tell(call=call["call"], error=f"{type(error).__name__}: {error}")
        else:
            tell(call=call["call"], end=True)

    while line := await reader.readline():
        task = asyncio.create_task(one(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


def serve(make: Callable[[], Talking]) -> None:
    """Do what is asked on standard input until it ends; `make` makes a client for each word in `at`."""
    asyncio.run(_serve(make))

"""Waiting for something that another process does: the one place where the harness looks again and again.

Owns: `until`. Knows nothing of: what is waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within: float, every: float = 0.005) -> bool:
    """Look every `every` seconds whether `condition` holds; False when it did not `within` that many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        holds = condition()
        if not isinstance(holds, bool):
            holds = await holds
        if holds:
            return True
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(every)

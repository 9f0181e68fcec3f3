"""Agents on real sockets that fail in each of the ways that a call can fail.

Owns: what they say and when they hang up. Knows nothing of: what the proxy makes of it.
"""

from collections.abc import Awaitable, Callable, Mapping

from forward.scripted_upstream import Line

Script = Callable[[Line], Awaitable[None]]
LUNCH = b"out for lunch"
"""The body of every gateway's answer."""


async def resets(line: Line) -> None:
    """Take the request and break the connection off."""
    await line.request()
    line.reset()


def answers(status: int) -> Script:
    """Answer with a status, as a gateway does whose agent is gone."""

    async def answer(line: Line) -> None:
        while True:
            await line.request()
            await line.say(b"HTTP/1.1 %d Nope\r\nX-Mood: tired\r\nContent-Length: 13\r\n\r\n%b" % (status, LUNCH))

    return answer


async def breaks_off(line: Line) -> None:
    """Begin an answer and break it off in its body."""
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    line.reset()


async def breaks_off_a_stream(line: Line) -> None:
    """Begin a stream and break it off before its first event."""
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    line.reset()


FAILING: Mapping[str, Script] = {
    "maybe": resets,
    "gateway": answers(502),
    "lost": breaks_off,
}

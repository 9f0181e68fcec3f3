"""What is asked: every operation in every dialect, what is wrong with requests, and what HTTP allows besides.

Owns: the table of cases, in the order in which an agent gets them.
Knows nothing of: who is asked, what the answers should be.

`@NAME@` in a target or a body stands for the task that the case NAME was answered with.
"""

import functools
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from differential.dialects import ALL, JSON, Dialect
from differential.wire import Said

UNKNOWN: Final = "00000000-0000-4000-8000-00000000dead"
UNICODE: Final = "été 東京 🙂 \u2028 \x7f \\u0041 &<>\"'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`opens`: the gate that is opened when the answer has begun. `card`: the answer holds a card."""

    name: str
    said: Said
    opens: str | None = None
    card: bool = False


@functools.cache
def cases(generation: str) -> dict[str, Case]:
    """Everything that an agent of that generation of a2a-sdk is asked, by name and in order."""
    dialects = [dialect for dialect in ALL if generation == "1.x" or not dialect.new]
    found = [case for dialect in dialects for case in (*_operations(dialect), *_wrong(dialect))]
    found += [*_versions(), *_malformed(), *_cards(), *_http(dialects[0]), *_answers()]
    table = {case.name: case for case in found}
    assert len(table) == len(found), "two cases have one name"
    return table


def _operations(dialect: Dialect) -> Iterator[Case]:
    """Every operation, as it should be."""
    name = dialect.name
    stories = ["hello", UNICODE, "message", "data", "fail", "reject", "ask", "auth", "big 2000", "big 1500000", "raise"]
    for number, text in enumerate(stories):
        label = f"{name}: send {text.partition(' ')[0] if text != UNICODE else 'unicode'} {number}"
        yield Case(name=label, said=dialect.send(text, f"m{number}", contextId=f"context of {name}"))
    for text in ("stream", "message", "fail", "ask", "hello", "raise", "big 300000"):
        yield Case(name=f"{name}: stream {text}", said=dialect.send(text, f"s-{text}", operation="stream"))
    asked = f"@{name}: send ask 6@"
    yield Case(name=f"{name}: follow-up", said=dialect.send("blue", "f1", taskId=asked))
    yield Case(name=f"{name}: follow-up to what is over", said=dialect.send("red", "f2", taskId=asked))
    refers = dialect.send("hello", "f3", referenceTaskIds=[asked])
    yield Case(name=f"{name}: a message that refers to a task", said=refers)
    done = f"@{name}: send hello 0@"
    for length in (None, 0, 1, 5):
        params = {"id": done} if length is None else {"id": done, "historyLength": length}
        yield Case(name=f"{name}: get, history {length}", said=dialect.ask("get", params))
    running = f"@{name}: send and do not wait@"
    yield Case(name=f"{name}: send and do not wait", said=dialect.send(f"slow never-{name[:4]}", "r1", now=True))
    yield Case(name=f"{name}: get what runs", said=dialect.ask("get", {"id": running}))
    for operation in ("push-set", "push-get", "push-list", "push-delete"):
        yield Case(name=f"{name}: {operation}", said=dialect.push(operation, running))
    yield Case(name=f"{name}: push-get of what was deleted", said=dialect.push("push-get", running))
    yield Case(name=f"{name}: cancel", said=dialect.ask("cancel", {"id": running}))
    yield Case(name=f"{name}: cancel again", said=dialect.ask("cancel", {"id": running}))
    gate = f"watched-{name.replace(' ', '-')}"
    watched = f"@{name}: send something to watch@"
    yield Case(name=f"{name}: send something to watch", said=dialect.send(f"slow {gate}", "w1", now=True))
    yield Case(name=f"{name}: subscribe", said=dialect.ask("subscribe", {"id": watched}), opens=gate)
    yield Case(name=f"{name}: subscribe to what is over", said=dialect.ask("subscribe", {"id": watched}))
    yield Case(name=f"{name}: extended card", said=dialect.ask("card", None), card=True)
    yield Case(name=f"{name}: list", said=dialect.ask("list", {}))
    if dialect.new:
        yield Case(name=f"{name}: list, a page", said=dialect.ask("list", {"pageSize": 2}))
        full = {"pageSize": 3, "includeArtifacts": "true" if dialect.binding != "JSONRPC" else True}
        yield Case(name=f"{name}: list with artifacts", said=dialect.ask("list", full))


def _wrong(dialect: Dialect) -> Iterator[Case]:
    """Operations that cannot be done, in words that can be read."""
    name = dialect.name
    for operation in ("get", "cancel", "subscribe"):
        yield Case(name=f"{name}: {operation} unknown", said=dialect.ask(operation, {"id": UNKNOWN}))
    yield Case(name=f"{name}: push-get unknown", said=dialect.push("push-get", UNKNOWN))
    yield Case(name=f"{name}: push-list unknown", said=dialect.push("push-list", UNKNOWN))
    yield Case(name=f"{name}: message to an unknown task", said=dialect.send("hello", "x1", taskId=UNKNOWN))
    yield Case(name=f"{name}: a message without parts", said=_send(dialect, messageId="x2", role="ROLE_USER"))
    yield Case(name=f"{name}: a message without anything", said=_send(dialect))
    yield Case(name=f"{name}: no message", said=dialect.ask("send", {}))
    yield Case(name=f"{name}: an unknown field", said=dialect.send("hello", "x3", futureField={"a": [1]}))
    twice = dialect.send("hello", "m0")
    yield Case(name=f"{name}: the same message id", said=twice)
    yield Case(name=f"{name}: extensions", said=_with(twice, (b"A2A-Extensions", b"https://a.example/x, urn:y")))
    if dialect.binding == "JSONRPC":
        for number, rpc_id in enumerate(("text", 0, -1, 10**18, 1.5, None, "", "été", True, [1], {"a": 1})):
            label = f"{name}: JSON-RPC id {number} {json.dumps(rpc_id)[:8]}"
            yield Case(name=label, said=dialect.ask("get", {"id": UNKNOWN}, rpc_id=rpc_id))


def _send(dialect: Dialect, **message: Any) -> Said:
    return dialect.ask("send", {"message": message})


def _with(said: Said, *fields: tuple[bytes, bytes]) -> Said:
    return replace(said, fields=(*said.fields, *fields))


def _versions() -> Iterator[Case]:
    """Versions that do not fit."""
    new, old = ALL[0], ALL[2]
    sends = {"1.0": new.send("hello", "v1"), "0.3": old.send("hello", "v2")}
    for speaks, said in sends.items():
        bare = replace(said, fields=(JSON,))
        yield Case(name=f"version: {speaks} without a word", said=bare)
        for value in (b"1.0", b"0.3", b"1.1", b"9.9", b"", b"one", b" 1.0 ", b"1.0.0"):
            yield Case(name=f"version: {speaks} as {value.decode()!r}", said=_with(bare, (b"A2A-Version", value)))
        yield Case(name=f"version: {speaks} in the query", said=replace(bare, target="/?A2A-Version=1.0"))
        doubled = _with(bare, (b"A2A-Version", b"1.0"), (b"a2a-version", b"0.3"))
        yield Case(name=f"version: {speaks} said twice", said=doubled)


def _malformed() -> Iterator[Case]:
    """Bodies that are none, or not what they say."""
    fields = ALL[0].fields()
    deep = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":' + b"[" * 400 + b"]" * 400 + b"}"
    bodies = {
        "empty": b"",
        "blank": b"  \n ",
        "not JSON": b"{nope",
        "cut off": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","par',
        "no UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}',
        "a BOM": b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}}',
        "a number": b"42",
        "a text": b'"hello"',
        "null": b"null",
        "an empty list": b"[]",
        "a batch": b'[{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}}]',
        "an empty object": b"{}",
        "no method": b'{"jsonrpc":"2.0","id":1,"params":{}}',
        "an unknown method": b'{"jsonrpc":"2.0","id":1,"method":"tasks/dance","params":{}}',
        "a method that is a number": b'{"jsonrpc":"2.0","id":1,"method":7,"params":{}}',
        "another JSON-RPC": b'{"jsonrpc":"1.0","id":1,"method":"GetTask","params":{"id":"x"}}',
        "no JSON-RPC version": b'{"id":1,"method":"GetTask","params":{"id":"x"}}',
        "params that are a list": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":["x"]}',
        "params that are null": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":null}',
        "no params": b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}',
        "a notification": b'{"jsonrpc":"2.0","method":"GetTask","params":{"id":"x"}}',
        "a member twice": b'{"jsonrpc":"2.0","id":1,"id":2,"method":"GetTask","params":{"id":"x","id":"y"}}',
        "more behind it": b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}} {}',
        "NaN": b'{"jsonrpc":"2.0","id":NaN,"method":"GetTask","params":{"id":"x"}}',
        "deep": deep,
        "white space around": b' \n {"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"x"}}\r\n',
    }
    for what, body in bodies.items():
        yield Case(name=f"malformed: {what}", said=Said(fields=fields, body=body))
    for what in ("not JSON", "empty", "a text", "a batch"):
        for target in ("/message:send", "/v1/message:send", "/message:stream"):
            said = Said(target=target, fields=fields, body=bodies[what])
            yield Case(name=f"malformed: {what} at {target}", said=said)
    send = ALL[0].send("hello", "t1")
    types = (b"text/plain", b"application/a2a+json", b"application/json; charset=latin-1", b"application/JSON", b"x")
    for value in types:
        said = replace(send, fields=((b"Content-Type", value), (b"A2A-Version", b"1.0")))
        yield Case(name=f"content type: {value.decode()}", said=said)
    yield Case(name="content type: none", said=replace(send, fields=((b"A2A-Version", b"1.0"),)))
    for accept in (b"text/html", b"application/json;q=0", b"text/event-stream"):
        yield Case(name=f"accept: {accept.decode()}", said=_with(send, (b"Accept", accept)))


def _cards() -> Iterator[Case]:
    """The public card, and what lies near it."""
    for target in ("/.well-known/agent-card.json", "/.well-known/agent.json"):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            said = Said(method=method, target=target, framing="none")
            yield Case(name=f"card: {method} {target}", said=said, card=method in {"GET", "HEAD"})
        said = Said(method="GET", target=f"{target}?v=1", framing="none")
        yield Case(name=f"card: {target} with a query", said=said, card=True)
    zipped = Said(method="GET", target="/.well-known/agent-card.json", fields=((b"Accept-Encoding", b"gzip"),))
    yield Case(name="card: zipped", said=replace(zipped, framing="none"), card=True)
    for target in ("/.well-known/jwks.json", "/.well-known/", "/.well-known/agent-card.json/", "/.well-known/other"):
        yield Case(name=f"card: not {target}", said=Said(method="GET", target=target, framing="none"))


def _http(dialect: Dialect) -> Iterator[Case]:
    """What HTTP allows besides."""
    send, stream = dialect.send("hello", "h1"), dialect.send("stream", "h2", operation="stream")
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
        yield Case(name=f"http: {method} /", said=Said(method=method, framing="none"))
        yield Case(
            name=f"http: {method} where nothing is", said=Said(method=method, target="/no/where", framing="none")
        )
    for framing in ("chunked", "expect"):
        yield Case(name=f"http: a send, {framing}", said=replace(send, framing=framing))
        yield Case(name=f"http: a stream, {framing}", said=replace(stream, framing=framing))
        large = replace(dialect.send("x" * 300_000, "h3"), framing=framing)
        yield Case(name=f"http: a large send, {framing}", said=large)
    yield Case(name="http: chunked and empty", said=Said(fields=dialect.fields(), framing="chunked"))
    large = dialect.send("y" * 5_000_000, "h4")
    yield Case(name="http: five million characters", said=large)
    zipped = replace(send, body=gzip.compress(send.body, mtime=0))
    yield Case(name="http: a zipped body", said=_with(zipped, (b"Content-Encoding", b"gzip")))
    yield Case(
        name="http: a zipped body, chunked",
        said=replace(_with(zipped, (b"Content-Encoding", b"gzip")), framing="chunked"),
    )
    yield Case(name="http: a body that says it is zipped", said=_with(send, (b"Content-Encoding", b"gzip")))
    for encoding in (b"gzip", b"gzip;q=0", b"br, gzip", b"identity", b"*"):
        many = _with(dialect.send("big 5000", f"z{encoding.decode()}"), (b"Accept-Encoding", encoding))
        yield Case(name=f"http: a long answer in {encoding.decode()}", said=many)
    yield Case(name="http: a stream in gzip", said=_with(stream, (b"Accept-Encoding", b"gzip")))
    shouted = tuple((name.upper(), value) for name, value in send.fields)
    yield Case(name="http: names in capitals", said=replace(send, fields=shouted))
    yield Case(
        name="http: names in small letters", said=replace(send, fields=tuple((n.lower(), v) for n, v in send.fields))
    )
    yield Case(name="http: HTTP/1.0", said=replace(send, http="1.0"))
    yield Case(name="http: a stream in HTTP/1.0", said=replace(stream, http="1.0"))
    yield Case(name="http: Connection close", said=_with(send, (b"Connection", b"close")))
    yield from _addressed(dialect)
    yield from _mirrored()


def _addressed(dialect: Dialect) -> Iterator[Case]:
    """Addresses that a proxy might tidy."""
    send = dialect.send("hello", "h1")
    slashes = (
        "//",
        "/./",
        "/message:send/",
        "/tasks",
        "/tasks/",
        "/tasks/a%2Fb",
        "/tasks/%C3%A9",
        "/tasks/a b".replace(" ", "%20"),
    )
    for target in (
        *slashes,
        "/tasks/x%00y",
        "/tasks/%zz",
        "/tasks/a%3Acancel",
        "/tasks/;p=1",
        "/%61",
        "/?",
        "/?a=1&a=2&b",
        "/?q=%E6%9D%B1+x",
    ):
        yield Case(
            name=f"http: GET {target}", said=Said(method="GET", target=target, fields=dialect.fields(), framing="none")
        )
    for target in ("/?x=1", "/message%3Asend", "/message:send?x=%2F&y"):
        yield Case(name=f"http: POST {target}", said=replace(send, target=target))


def _mirrored() -> Iterator[Case]:
    """Requests that the agent shows as it saw them."""
    fields = {
        "plain": ((b"X-A", b"1"),),
        "repeated": ((b"X-A", b"1"), (b"x-a", b"2"), (b"X-a", b"")),
        "order": ((b"Zeta", b"1"), (b"alpha", b"2"), (b"Mid", b"3")),
        "latin": ((b"X-A", b"caf\xe9"),),
        "utf8": ((b"X-A", "東京".encode()),),
        "long": ((b"X-A", b"v" * 12_000),),
        "many": tuple((b"X-%d" % number, b"v") for number in range(60)),
        "cookies": ((b"Cookie", b"a=1"), (b"Cookie", b"b=2")),
        "tracing": (
            (b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"),
            (b"tracestate", b"a=b"),
            (b"baggage", b"c=d"),
        ),
        "credentials": ((b"Authorization", b"Bearer agents-own"), (b"X-API-Key", b"k")),
        "forwarded": ((b"Forwarded", b"for=1.2.3.4"), (b"X-Forwarded-For", b"1.2.3.4"), (b"Via", b"1.1 someone")),
        "conditional": ((b"If-None-Match", b'"abc"'), (b"Range", b"bytes=0-3"), (b"If-Range", b'"abc"')),
        "user agent": (
            (b"User-Agent", b"a2a-client/1.0 (x; y)"),
            (b"From", b"a@b.example"),
            (b"Referer", b"http://x/"),
        ),
        "last event": ((b"Last-Event-ID", b"17"), (b"Accept", b"text/event-stream"), (b"Cache-Control", b"no-store")),
        "extensions": ((b"A2A-Extensions", b"a, b"), (b"X-A2A-Extensions", b"c"), (b"A2A-Version", b"1.0")),
    }
    for what, pairs in fields.items():
        yield Case(
            name=f"mirror: fields, {what}", said=Said(method="GET", target="/mirror", fields=pairs, framing="none")
        )
    for target in (
        "/mirror?a=1&b=%20&a=2&c",
        "/mirror/a%2Fb/%C3%A9",
        "/mirror/a//b",
        "/mirror/./x",
        "/mirror/a;b=c",
        "/mirror?",
        "/mirror/x?y#z",
        "/mirror/%7Euser/~user",
        "/mirror/a+b?c+d",
    ):
        yield Case(name=f"mirror: target {target!a}", said=Said(method="GET", target=target, framing="none"))
    body = bytes(range(256)) * 40
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for framing in ("length", "chunked", "expect"):
            said = Said(
                method=method,
                target="/mirror",
                fields=((b"Content-Type", b"application/octet-stream"),),
                body=body,
                framing=framing,
            )
            yield Case(name=f"mirror: {method} {framing}", said=said)
    yield Case(name="mirror: OPTIONS", said=Said(method="OPTIONS", target="/mirror", framing="none"))
    yield Case(name="mirror: HEAD", said=Said(method="HEAD", target="/mirror", framing="none"))
    yield Case(name="mirror: POST of nothing", said=Said(target="/mirror"))
    yield Case(name="mirror: a GET with a body", said=Said(method="GET", target="/mirror", body=b"body"))
    zipped = Said(target="/mirror", fields=((b"Content-Encoding", b"gzip"),), body=gzip.compress(body, mtime=0))
    yield Case(name="mirror: zipped", said=zipped)


def _answers() -> Iterator[Case]:
    """Answers that are unusual."""
    for name in ("cookies", "case", "named", "dated", "parts", "long", "header"):
        yield Case(name=f"answer: {name}", said=Said(method="GET", target=f"/odd/{name}", framing="none"))
    statuses = (200, 201, 202, 203, 204, 206, 299, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 409, 410)
    for status in (*statuses, 413, 415, 418, 422, 425, 426, 428, 429, 431, 451, 499, 500, 501, 505, 507, 508, 511, 599):
        yield Case(name=f"answer: status {status}", said=Said(method="GET", target=f"/odd/{status}", framing="none"))
    yield Case(
        name="answer: zipped",
        said=Said(method="GET", target="/odd/long", fields=((b"Accept-Encoding", b"gzip"),), framing="none"),
    )

"""Every way in which an upstream call fails on a real socket, with its outcome class and reason."""

import asyncio
import errno
import socket
import ssl

import pytest
from forward.scripted_upstream import ask

from proxy.core.addresses import read_url
from proxy.forward import Outcome, UpstreamFailure
from proxy.forward.pool import _connect_failure

NOT_SENT, MAYBE, LOST = Outcome.NOT_SENT, Outcome.MAYBE, Outcome.LOST


async def failure_of(pool, request):
    """Send and read to the end; give (outcome, reason), or what came instead."""
    answer = None
    try:
        answer = await pool.send(request)
        return "whole", await answer.read(0)
    except UpstreamFailure as failure:
        if (answer is not None) is not (failure.outcome is LOST):
            raise  # lost means exactly that: a head came
        return failure.outcome, failure.reason
    finally:
        if answer is not None:
            await answer.aclose()


def lookup_of(*answers):
    """Resolve every name to the next of the answers, the last one for ever; an exception is raised."""
    remaining = list(answers)

    async def lookup(host):
        answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return lookup


async def test_a_refused_connection_is_not_sent(pool, refused_port):
    assert await failure_of(pool, ask(f"http://127.0.0.1:{refused_port}/")) == (NOT_SENT, "refused")


@pytest.mark.parametrize("answer", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label"), []])
async def test_a_name_that_does_not_resolve_is_not_sent(make_pool, answer):
    pool = make_pool(lookup=lookup_of(answer))
    assert await failure_of(pool, ask("http://agent.test/")) == (NOT_SENT, "dns")


async def test_a_lookup_that_takes_too_long_is_not_sent_and_is_shared(make_pool):
    asked = []
    release = asyncio.Event()

    async def lookup(host):
        asked.append(host)
        await release.wait()
        return ["127.0.0.1"]

    pool = make_pool(lookup=lookup)
    slow = [failure_of(pool, ask("http://agent.test/", connect_timeout=0.05)) for _ in range(3)]
    assert await asyncio.gather(*slow) == [(NOT_SENT, "dns")] * 3
    assert asked == ["agent.test"]
    release.set()


async def test_a_host_that_does_not_answer_is_a_connect_timeout(pool):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:  # a full backlog leaves further connections without any reply
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        request = ask(f"http://127.0.0.1:{deaf.getsockname()[1]}/", connect_timeout=0.1)
        assert await failure_of(pool, request) == (NOT_SENT, "connect_timeout")
        for sock in filling:
            sock.close()


async def test_the_second_address_of_a_name_is_tried_when_the_first_refuses(make_pool, serve):
    peer = await serve(lambda line: answer_one(line, b"second"))
    pool = make_pool(lookup=lookup_of(["127.0.0.9", "127.0.0.1"]))
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == ("whole", b"second")


async def test_when_every_address_refuses_the_call_is_refused(make_pool, refused_port):
    pool = make_pool(lookup=lookup_of(["127.0.0.9", "127.0.0.1"]))
    assert await failure_of(pool, ask(f"http://agent.test:{refused_port}/")) == (NOT_SENT, "refused")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://[::1]:1/", "http://169.254.169.254/", "http://10.0.0.1/"]
)
async def test_a_forbidden_literal_address_is_not_sent_scenario_29(make_pool, url):
    assert await failure_of(make_pool(allow=()), ask(url)) == (NOT_SENT, "forbidden_address")


async def test_a_metadata_address_behind_a_name_is_never_dialled_scenario_29(make_pool):
    pool = make_pool(allow=("0.0.0.0/0", "::/0"), lookup=lookup_of(["169.254.169.254"]))
    for own_child in (False, True):
        assert await failure_of(pool, ask("http://agent.test/", own_child=own_child)) == (NOT_SENT, "forbidden_address")


async def test_one_forbidden_address_among_good_ones_forbids_the_name(make_pool, serve):
    peer = await serve(answer_one)
    pool = make_pool(allow=("127.0.0.1/32",), lookup=lookup_of(["127.0.0.1", "127.0.0.2"]))
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == (NOT_SENT, "forbidden_address")
    assert peer.accepted == 0


async def test_a_name_that_is_rebound_is_judged_again_and_its_connection_not_used(make_pool, serve):
    peer = await serve(answer_all)
    asked = []

    async def lookup(host):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    pool = make_pool(allow=("127.0.0.1/32",), lookup=lookup, dns_ttl=0)
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == ("whole", b"ok")
    assert asked == ["agent.test"], "what was judged is what was dialled: no second look-up"
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == (NOT_SENT, "forbidden_address")
    assert peer.accepted == 1


async def test_a_name_that_moves_takes_its_traffic_along(make_pool, serve):
    peer = await serve(answer_all)
    pool = make_pool(lookup=lookup_of(["127.0.0.1"], ["127.0.0.2"]), dns_ttl=0)
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == ("whole", b"ok")
    assert await failure_of(pool, ask(peer.url(host="agent.test"))) == (NOT_SENT, "refused")


async def test_a_child_of_our_own_is_dialled_on_loopback_and_nobody_else_may_follow(make_pool, serve):
    peer = await serve(answer_all)
    pool = make_pool(allow=())
    assert await failure_of(pool, ask(peer.url(), own_child=True)) == ("whole", b"ok")
    assert await failure_of(pool, ask(peer.url())) == (NOT_SENT, "forbidden_address")


@pytest.mark.parametrize(
    "url",
    ["http://", "agent:80/", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "http://0x7f.1/", "http://127.0.0.1:9/a b"],
)
async def test_a_url_that_cannot_be_dialled_is_not_sent(pool, url):
    assert await failure_of(pool, ask(url)) == (NOT_SENT, "bad_request")


async def test_a_forged_field_is_not_sent(pool, refused_port):
    request = ask(f"http://127.0.0.1:{refused_port}/", headers=((b"X", b"1\r\nHost: other"),))
    assert await failure_of(pool, request) == (NOT_SENT, "bad_request")


@pytest.mark.parametrize("host", ["127.0.0.1", "agent.test"])
async def test_https_is_spoken_where_the_certificate_fits(make_pool, serve, tls_pair, host):
    server, client = tls_pair
    peer = await serve(answer_all, server)
    pool = make_pool(tls=client, lookup=lookup_of(["127.0.0.1"]))
    for _ in range(2):
        assert await failure_of(pool, ask(peer.url(host=host))) == ("whole", b"ok")
    assert peer.accepted == 1


async def test_a_certificate_for_another_name_is_not_sent(make_pool, serve, tls_pair):
    server, client = tls_pair
    peer = await serve(answer_all, server)
    pool = make_pool(tls=client, lookup=lookup_of(["127.0.0.1"]))
    assert await failure_of(pool, ask(peer.url(host="other.test"))) == (NOT_SENT, "tls")


async def test_a_certificate_that_nobody_vouches_for_is_not_sent(pool, serve, tls_pair):
    peer = await serve(answer_all, tls_pair[0])
    assert await failure_of(pool, ask(peer.url())) == (NOT_SENT, "tls")


async def test_https_to_a_port_that_speaks_http_is_not_sent(make_pool, serve, tls_pair):
    peer = await serve(lambda line: line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    outcome, reason = await failure_of(make_pool(tls=tls_pair[1]), ask(peer.url().replace("http:", "https:")))
    assert outcome is NOT_SENT
    assert reason in {"tls", "reset"}


@pytest.mark.parametrize(
    ("problem", "address", "reason"),
    [
        (OSError(errno.EMFILE, "too many files"), "192.0.2.1", "resources"),
        (OSError(errno.ENOBUFS, "no buffers"), "192.0.2.1", "resources"),
        (OSError(errno.EADDRNOTAVAIL, "no port left"), "192.0.2.1", "resources"),
        (OSError(errno.EADDRNOTAVAIL, "no IPv6 here"), "::1", "unreachable"),
        (OSError(errno.EHOSTUNREACH, "no route"), "192.0.2.1", "unreachable"),
        (TimeoutError(errno.ETIMEDOUT, "gave up"), "192.0.2.1", "connect_timeout"),
        (ConnectionResetError(), "192.0.2.1", "reset"),
        (ConnectionRefusedError(), "192.0.2.1", "refused"),
        (ssl.SSLCertVerificationError(), "192.0.2.1", "tls"),
    ],
)
def test_a_shortage_of_our_own_is_told_from_a_host_that_is_away(problem, address, reason):
    failure = _connect_failure(address, read_url("http://agent.test/secret"), problem)
    assert (failure.outcome, failure.reason) == (NOT_SENT, reason)
    assert "secret" not in str(failure)


async def answer_one(line, body=b"ok"):
    await line.request()
    await line.answer(body)


async def answer_all(line):
    while True:
        await answer_one(line)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", (MAYBE, "eof")),
        (b"HTTP/1.1 200 OK\r\nContent-", (MAYBE, "eof")),
        (b"nonsense\r\n\r\n", (MAYBE, "bad_response")),
        (HEAD + b"hel", (LOST, "eof")),
        (HEAD.replace(b"5", b"x"), (MAYBE, "bad_response")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", (LOST, "eof")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", (LOST, "bad_response")),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", ("whole", b"no")),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\ngo", ("whole", b"go")),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", ("whole", b"until the end")),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
async def test_what_upstream_says_before_it_closes_decides_the_class(dial, secure, said, told):
    async def script(line):
        await line.request()
        await line.say(said)

    pool, peer = await dial(script, secure=secure)
    assert await failure_of(pool, ask(peer.url(), body=b"please")) == told
    assert peer.accepted == 1, "nothing is ever sent twice"


async def test_a_reset_before_the_head_is_maybe(pool, serve):
    async def script(line):
        await line.request()
        line.reset()

    peer = await serve(script)
    assert await failure_of(pool, ask(peer.url(), body=b"please")) == (MAYBE, "reset")
    assert peer.accepted == 1


async def test_a_reset_in_mid_body_is_lost(pool, serve):
    read_so_far = asyncio.Event()

    async def script(line):
        await line.request()
        await line.say(HEAD + b"hel")
        await read_so_far.wait()
        line.reset()

    peer = await serve(script)
    answer = await pool.send(ask(peer.url()))
    chunks = answer.chunks()
    assert await anext(chunks) == b"hel"
    read_so_far.set()
    with pytest.raises(UpstreamFailure) as failure:
        await anext(chunks)
    assert (failure.value.outcome, failure.value.reason) == (LOST, "reset")


async def test_silence_is_maybe_before_the_head_and_lost_after_it(pool, serve):
    async def silent(line):
        await line.request()
        await line.closed_by_proxy()

    async def silent_later(line):
        await line.request()
        await line.say(HEAD)
        await line.closed_by_proxy()

    first, second = await serve(silent), await serve(silent_later)
    assert await failure_of(pool, ask(first.url(), idle_timeout=0.05)) == (MAYBE, "idle_timeout")
    assert await failure_of(pool, ask(second.url(), idle_timeout=1.5)) == (LOST, "idle_timeout")


async def test_a_reused_connection_that_closes_unanswered_is_maybe_and_not_repeated(pool, serve):
    requests = []

    async def script(line):
        for _ in range(2):
            requests.append(await line.request())
            if len(requests) == 1:
                await line.answer(b"ok")

    peer = await serve(script)
    assert await failure_of(pool, ask(peer.url(), body=b"1")) == ("whole", b"ok")
    assert await failure_of(pool, ask(peer.url(), body=b"2")) == (MAYBE, "eof")
    assert [body for _, body in requests] == [b"1", b"2"]
    assert peer.accepted == 1


async def test_a_failures_text_names_the_place_and_nothing_of_the_request(pool, refused_port):
    request = ask(f"http://127.0.0.1:{refused_port}/path?token=secret", headers=((b"Authorization", b"secret"),))
    with pytest.raises(UpstreamFailure) as failure:
        await pool.send(request)
    assert str(refused_port) in str(failure.value)
    assert "secret" not in f"{failure.value!r} {failure.value} {request!r}"

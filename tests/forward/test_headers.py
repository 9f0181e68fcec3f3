"""Which fields cross the proxy, and that no request can be written that reads as two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.forward import Outcome, UpstreamFailure
from proxy.forward.headers import Kinds, answer_fields, answer_headers, end_to_end, request_head, request_lines


def test_what_is_meant_for_the_agent_passes_in_order_with_case_and_duplicates():
    headers = (
        (b"X-B", b"2"),
        (b"x-a", b"1"),
        (b"X-b", b" 3 "),
        (b"X-B", b"2"),
        (b"Accept-Encoding", b"gzip"),
        (b"X-Workspace-ID", b"alice"),
        (b"Idempotency-Key", b"k"),
        (b"Content-Type", b"application/json"),
    )
    assert end_to_end(headers) == headers
    assert answer_headers(headers) == headers


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authenticate",
        b"Proxy-Authorization",
        b"TE",
        b"Trailer",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Holdfast-Token",
        b"HOLDFAST-anything",
    ],
)
def test_hop_by_hop_fields_and_our_own_pass_in_neither_direction(name):
    headers = ((b"A", b"1"), (name, b"trailers"), (b"B", b"2"))
    assert end_to_end(headers) == ((b"A", b"1"), (b"B", b"2"))
    assert answer_headers(headers) == ((b"A", b"1"), (b"B", b"2"))


def test_fields_that_connection_names_are_dropped_wherever_they_stand():
    headers = (
        (b"X-Hop", b"1"),
        (b"Connection", b"close, x-hop"),
        (b"Keep", b"2"),
        (b"connection", b",Other"),
        (b"OTHER", b"3"),
    )
    assert end_to_end(headers) == ((b"Keep", b"2"),)
    assert answer_headers(headers) == ((b"Keep", b"2"),)


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Expect"])
def test_what_is_made_anew_for_the_next_hop_is_dropped_from_a_request(name):
    assert end_to_end(((name, b"1"),)) == ()


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        (b"Bearer hf_secret", False),
        (b"bearer   hf_secret", False),
        (b" BEARER\thf_secret", False),
        (b"Bearer agents-own-token", True),
        (b"Bearer HF_x", False),
        (b"Basic aGZfeDp5", True),
        (b"Bearer xhf_y", True),
        (b"hf_secret", True),
    ],
)
def test_only_our_own_bearer_token_is_taken_from_authorization(value, passes):
    headers = ((b"authorization", value),)
    assert end_to_end(headers) == (headers if passes else ())


def test_an_answers_length_stays_unless_its_body_is_framed_anew():
    headers = ((b"Content-Length", b"3"), (b"ETag", b"x"))
    assert answer_headers(headers) == headers
    assert answer_headers(headers, reframed=True) == ((b"ETag", b"x"),)
    assert answer_headers(((b"Connection", b"content-length"), *headers)) == headers


def test_a_head_is_written_verbatim_between_host_and_length():
    head = request_head("POST", b"/a//b/../%41?q=%20&&", "agent:8080", ((b"X-b", b"1"), (b"x-B", b"")), 12)
    assert head == (
        b"POST /a//b/../%41?q=%20&& HTTP/1.1\r\nHost: agent:8080\r\nX-b: 1\r\nx-B: \r\nContent-Length: 12\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "length", "written"),
    [
        ("POST", 0, True),
        ("PUT", 0, True),
        ("GET", 0, False),
        ("DELETE", 0, False),
        ("GET", 1, True),
        ("QUERY", 3, True),
    ],
)
def test_a_length_is_written_where_a_body_is_or_is_expected(method, length, written):
    assert (b"Content-Length" in request_head(method, b"/", "h", (), length)) is written


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GE T", b"/", ()),
        ("GET\r\nX", b"/", ()),
        ("", b"/", ()),
        ("GÉT", b"/", ()),
        ("GET", b"", ()),
        ("GET", b"x", ()),
        ("GET", b"/a b", ()),
        ("GET", b"/\r\nX: y", ()),
        ("GET", b"/\x00", ()),
        ("GET", b"/\n", ()),
        ("GET", b"/", ((b"X", b"a\r\nY: b"),)),
        ("GET", b"/", ((b"X", b"a\nY: b"),)),
        ("GET", b"/", ((b"X", b"a\rb"),)),
        ("GET", b"/", ((b"X", b"a\0b"),)),
        ("GET", b"/", ((b"X\r\nY", b"b"),)),
        ("GET", b"/", ((b"X\nY", b"b"),)),
        ("GET", b"/", ((b"X: y", b"b"),)),
        ("GET", b"/", ((b"X ", b"b"),)),
        ("GET", b"/", ((b"", b"b"),)),
        ("GET", b"/", ((b"Transfer-Encoding ", b"chunked"),)),
        ("GET", b"/", ((b"transfer-encoding", b"chunked"),)),
        ("GET", b"/", ((b"CONTENT-LENGTH", b"3"),)),
        ("GET", b"/", ((b"hOst", b"other"),)),
    ],
)
def test_what_would_be_read_as_something_else_is_not_written(method, target, headers):
    with pytest.raises(UpstreamFailure) as failure:
        request_head(method, target, "h", headers, 0)
    assert (failure.value.outcome, failure.value.reason) == (Outcome.NOT_SENT, "bad_request")


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4))
def test_whatever_the_fields_are_a_written_head_has_exactly_their_lines(pairs):
    headers = end_to_end(tuple(pairs))
    try:
        head = request_head("GET", b"/", "h", headers, 0)
    except UpstreamFailure:
        return
    lines = head.split(b"\r\n")
    assert lines == [b"GET / HTTP/1.1", b"Host: h", *(name + b": " + value for name, value in headers), b"", b""]


# --- written once, and remembered -------------------------------------------------------------------------------------

TOKEN = st.text("abcXYZ-019", min_size=1, max_size=12).map(str.encode)
NAMES = st.one_of(
    TOKEN,
    st.sampled_from([b"Connection", b"Content-Length", b"content-TYPE", b"Date", b"Holdfast-X", b"TE", b"Keep-Alive"]),
)
VALUES = st.binary(max_size=12).map(lambda value: bytes(set(value) - set(b"\r\n\0")))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(tuple)


@given(headers=FIELDS, reframed=st.booleans())
def test_the_lines_of_an_answer_are_those_of_its_fields_byte_for_byte(headers, reframed):
    kept = answer_headers(headers, reframed=reframed)
    lengths = [value.strip(b" \t") for name, value in kept if name.lower() == b"content-length"]
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        with pytest.raises(UpstreamFailure):
            answer_fields(headers, reframed=reframed)
        return
    fields = answer_fields(headers, reframed=reframed)
    assert fields.lines == b"".join(name + b": " + value + b"\r\n" for name, value in kept)
    names = [name.lower() for name, _ in kept]
    assert fields.dated == (b"date" in names)
    assert fields.length == (int(lengths[0]) if lengths else None)


@pytest.mark.parametrize("value", [b"5 ", b"5\t", b" 5", b"\t 05 \t"])
def test_blanks_around_a_length_are_no_part_of_it(value):
    assert answer_fields(((b"Content-Length", value),)).length == 5


@pytest.mark.parametrize("value", [b"", b"+5", b"5, 5", b"0x5", b"-1", b"5 5", b"0" * 20, b"5\x0b"])
def test_a_length_that_is_none_is_a_broken_answer(value):
    with pytest.raises(UpstreamFailure) as failure:
        answer_fields(((b"Content-Length", value),))
    assert (failure.value.outcome, failure.value.reason) == (Outcome.LOST, "bad_response")


@pytest.mark.parametrize(
    "name", [b"Holdfast_Token", b"holdfast_x-y", b"Content_Length", b"Proxy_Connection", b"X_WORKSPACE-id"]
)
def test_a_name_that_reads_like_one_that_may_not_pass_does_not_pass_either(name):
    assert end_to_end(((name, b"1"), (b"X_Other_ID", b"2"))) == ((b"X_Other_ID", b"2"),)


@pytest.mark.parametrize(
    ("value", "stream"),
    [(b"text/event-stream", True), (b"Text/Event-Stream; charset=utf-8", True), (b"application/json", False)],
)
def test_a_stream_is_known_by_its_content_type(value, stream):
    assert answer_fields(((b"content-type", value),)).stream is stream


@pytest.mark.parametrize("value", [b"a\r\nX: b", b"a\nb", b"a\rb", b"a\0b"])
def test_an_answers_field_that_would_be_two_is_a_broken_answer(value):
    with pytest.raises(UpstreamFailure) as failure:
        answer_fields(((b"A", b"1"), (b"X", value)))
    assert (failure.value.outcome, failure.value.reason) == (Outcome.LOST, "bad_response")


def test_a_head_of_written_lines_is_the_head_of_its_fields():
    headers = ((b"A", b"1"), (b"b", b""), (b"A", b"\xe9"))
    written = request_head("POST", b"/x", "h", (), 3, lines=request_lines(headers))
    assert written == request_head("POST", b"/x", "h", headers, 3)


def test_names_are_remembered_as_they_were_written_and_only_so_many():
    asked = []
    kinds = Kinds(lambda name: asked.append(name) or len(name))
    for _ in range(2):
        assert (kinds[b"Abc"], kinds[b"abcd"]) == (3, 4)
    assert asked == [b"Abc", b"abcd"]
    for number in range(2000):
        assert kinds[b"n%d" % number] == len(b"n%d" % number)
    assert kinds[b"x" * 5000] == 5000
    assert len(kinds) <= 512
    assert max(map(len, kinds)) < 512

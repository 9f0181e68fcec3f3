"""The agent card seen through the proxy."""

import json

import pytest
from a2a.compat.v0_3 import types
from a2a.server.routes.agent_card_routes import agent_card_to_dict
from a2a.types.a2a_pb2 import AgentCard
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from proxy.core.a2a import is_card, rewrite_card

PUBLIC = "https://proxy.example/workspaces/w/a2a"
UPSTREAM = "http://127.0.0.1:9001/agent"


def rewritten(card: object, public: str = PUBLIC, upstream: str = UPSTREAM) -> dict[str, object]:
    made: dict[str, object] = json.loads(rewrite_card(json.dumps(card).encode(), public, upstream))
    return made


def address_of(url: str, upstream: str = UPSTREAM) -> object:
    return rewritten({"name": "a", "url": url}, upstream=upstream)["url"]


@pytest.mark.parametrize(
    ("url", "upstream", "moved"),
    [
        ("http://127.0.0.1:9001/agent", UPSTREAM, PUBLIC),
        ("http://127.0.0.1:9001/agent/", UPSTREAM, f"{PUBLIC}/"),
        ("http://127.0.0.1:9001/agent/rpc", UPSTREAM, f"{PUBLIC}/rpc"),
        ("https://agent.example/agent/rpc?x=1", UPSTREAM, f"{PUBLIC}/rpc?x=1"),  # agents often do not know their host
        ("http://127.0.0.1:9001/agents", UPSTREAM, PUBLIC),
        ("http://127.0.0.1:9001/other", UPSTREAM, PUBLIC),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001", PUBLIC),
        ("http://127.0.0.1:9001/", "http://127.0.0.1:9001", PUBLIC),
        ("http://127.0.0.1:9001/", "http://127.0.0.1:9001/", PUBLIC),
        ("http://0.0.0.0:9001/a2a/v1", "http://127.0.0.1:9001/", f"{PUBLIC}/a2a/v1"),
        ("HTTP://h/agent/x", UPSTREAM, f"{PUBLIC}/x"),
        ("http://h/agent/../../other/a2a", UPSTREAM, PUBLIC),
        ("http://h/agent/x/%2E%2e/y", UPSTREAM, PUBLIC),
        (PUBLIC, UPSTREAM, PUBLIC),
        (f"{PUBLIC}/rpc?x=1", "http://127.0.0.1:9001", f"{PUBLIC}/rpc?x=1"),
        (f"{PUBLIC}x", UPSTREAM, PUBLIC),
        (f"{PUBLIC}/../../../admin", UPSTREAM, PUBLIC),
    ],
)
def test_an_address_below_the_upstreams_keeps_its_path_below(url, upstream, moved):
    assert address_of(url, upstream) == moved


def test_a_trailing_slash_of_the_public_base_makes_no_double_one():
    card = rewritten({"name": "a", "url": "http://h/agent/rpc"}, public=PUBLIC + "/")
    assert card["url"] == f"{PUBLIC}/rpc"


SDK_CARD = ParseDict(
    {
        "name": "a",
        "description": "d",
        "version": "1",
        "provider": {"url": "https://maker.example", "organization": "m"},
        "documentationUrl": "https://docs.example",
        "iconUrl": "https://icons.example",
        "supportedInterfaces": [
            {"url": "http://127.0.0.1:9001/agent/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": "127.0.0.1:50051", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            {
                "url": "http://127.0.0.1:9001/agent",
                "protocolBinding": "HTTP+JSON",
                "protocolVersion": "1.0",
                "tenant": "t",
            },
            {"url": "http://127.0.0.1:9001/agent/old", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        ],
        "securitySchemes": {
            "oidc": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "http://127.0.0.1:9001/agent/oidc"}}
        },
        "signatures": [{"protected": "p", "signature": "s"}],
        "skills": [{"id": "s", "name": "s", "description": "d", "tags": []}],
        "defaultInputModes": ["text"],
        "defaultOutputModes": ["text"],
    },
    AgentCard(),
)


def test_a_card_of_the_sdk_for_both_versions_is_rewritten_in_all_its_parts():
    served = agent_card_to_dict(SDK_CARD)
    assert "url" in served  # it speaks v0.3 as well, so the test means something
    card = rewritten(served)
    new = ParseDict(card, AgentCard(), ignore_unknown_fields=True)
    assert [(one.url, one.protocol_binding, one.tenant) for one in new.supported_interfaces] == [
        (f"{PUBLIC}/rpc", "JSONRPC", ""),
        (PUBLIC, "HTTP+JSON", "t"),
        (f"{PUBLIC}/old", "JSONRPC", ""),
    ]
    assert not new.signatures
    old = types.AgentCard.model_validate(card)
    assert old.url == f"{PUBLIC}/old"
    untouched = set(served) - {"supportedInterfaces", "url", "additionalInterfaces", "signatures"}
    assert {name: card[name] for name in untouched} == {name: served[name] for name in untouched}
    assert "127.0.0.1:9001" in json.dumps(card["securitySchemes"])


OLD_CARD = {"name": "a", "url": "http://h/agent", "preferredTransport": "JSONRPC", "capabilities": {}, "signatures": []}


def test_a_v03_card_is_rewritten_and_its_grpc_interface_dropped():
    card = rewritten(
        OLD_CARD
        | {
            "additionalInterfaces": [
                {"url": "http://h/agent", "transport": "JSONRPC"},
                {"url": "h:50051", "transport": "GRPC"},
                {"url": "http://h:50051", "transport": "grpc"},
                {"url": "http://h/agent/rest", "transport": "HTTP+JSON", "own": [1]},
                {"transport": "HTTP+JSON"},
                "nonsense",
            ],
        }
    )
    assert card["additionalInterfaces"] == [
        {"url": PUBLIC, "transport": "JSONRPC"},
        {"url": f"{PUBLIC}/rest", "transport": "HTTP+JSON", "own": [1]},
    ]
    assert (card["url"], card["preferredTransport"]) == (PUBLIC, "JSONRPC")
    assert "signatures" not in card


def test_where_the_preferred_address_is_grpc_the_first_one_that_is_carried_takes_its_place():
    grpc = OLD_CARD | {"url": "h:50051", "preferredTransport": "GRPC"}
    rest = {"url": "http://h/agent/rest", "transport": "HTTP+JSON"}
    card = rewritten(grpc | {"additionalInterfaces": [{"url": "h:50051", "transport": "GRPC"}, rest]})
    assert (card["url"], card["preferredTransport"]) == (f"{PUBLIC}/rest", "HTTP+JSON")
    alone = rewritten(grpc)
    assert (alone["url"], "preferredTransport" in alone) == (PUBLIC, False)


def test_the_extended_card_is_rewritten_inside_its_json_rpc_answer():
    body = b'{"jsonrpc":"2.0","id":1.50,"result":' + json.dumps(OLD_CARD).encode() + b"}"
    made = rewrite_card(body, PUBLIC, UPSTREAM)
    assert made.startswith(b'{"jsonrpc":"2.0","id":1.50,"result":{')
    assert json.loads(made)["result"]["url"] == PUBLIC


def test_where_no_extended_card_can_be_had_none_is_announced():
    old = {**OLD_CARD, "url": PUBLIC, "supportsAuthenticatedExtendedCard": True}
    listed = {"name": "n", "supportedInterfaces": [], "signatures": [{}]}
    new = {**listed, "capabilities": {"streaming": True, "extendedAgentCard": True}}
    shown = json.loads(rewrite_card(json.dumps(old).encode(), PUBLIC, UPSTREAM, extended=False))
    assert "supportsAuthenticatedExtendedCard" not in shown
    shown = json.loads(rewrite_card(json.dumps(new).encode(), PUBLIC, UPSTREAM, extended=False))
    assert (shown["capabilities"], "signatures" in shown) == ({"streaming": True}, False)
    plain = json.dumps({**listed, "capabilities": {"streaming": True}}).encode()
    assert rewrite_card(plain, PUBLIC, UPSTREAM, extended=False) == plain


def test_unknown_fields_keep_their_bytes():
    odd = b'{"n":1.0e2,"n":2,"s":"\\u00e9"}'
    assert odd in rewrite_card(b'{"name":"a","url":"http://h","x":' + odd + b"}", PUBLIC, UPSTREAM)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"error":"no such agent"}',
        b'{"name":"a"}',
        b'{"url":"http://h"}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32007,"message":"x"}}',
        b'{"name":"\xff","url":"http://h"}',
    ],
)
def test_what_is_no_card_stays_as_it_is(body):
    assert rewrite_card(body, PUBLIC, UPSTREAM) is body


@pytest.mark.parametrize(
    ("urls", "upstream", "carried"),
    [
        (["http://127.0.0.1:9001/a", "http://other.example/b"], "http://127.0.0.1:9001", ["/a"]),
        (["http://other.example/b", "http://127.0.0.1:9001/a"], "http://127.0.0.1:9001", ["/a"]),
        (["http://localhost:9001/a", "http://0.0.0.0:9001/b", "http://[::1]:9001/c"], "http://127.9.9.9:9001", "abc"),
        (["http://127.0.0.1:9001/a", "http://127.0.0.1:9002/b"], "http://127.0.0.1:9001", ["/a"]),
        (["http://agent:80/a", "http://AGENT/b", "https://agent/c"], "http://agent", "ab"),
        (["https://own.example/a", "https://own.example:443/b", "https://b.example/c"], "http://10.0.0.7:9001", "ab"),
        ([f"{PUBLIC}/a", "https://own.example/b", "https://b.example/c"], "http://10.0.0.7:9001", "ab"),
        (["ftp://agent/a", "http://[", "http://h:99999/b", "agent:9001", "http://agent/c"], "http://agent", "c"),
        ([], "http://agent", []),
    ],
)
def test_only_interfaces_of_the_agents_own_server_are_carried(urls, upstream, carried):
    card = {"name": "a", "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC"} for url in urls]}
    shown = rewritten(card, upstream=upstream)["supportedInterfaces"]
    assert isinstance(shown, list)
    assert [one["url"] for one in shown] == [f"{PUBLIC}/{path.lstrip('/')}" for path in carried]
    kept = json.loads(rewrite_card(json.dumps(card).encode(), PUBLIC, upstream, keep_others=True))
    assert len(kept["supportedInterfaces"]) == len(urls)


def test_a_main_address_that_is_not_carried_stays_where_others_are_kept():
    grpc = {"name": "a", "url": "h:50051", "preferredTransport": "GRPC", "signatures": [1]}
    body = json.dumps(grpc).encode()
    assert rewrite_card(body, PUBLIC, UPSTREAM, keep_others=True) is body


LEADS_HERE = {"name": "a", "url": f"{PUBLIC}/rpc", "supportedInterfaces": [{"url": PUBLIC}], "signatures": [1]}


def test_a_card_that_leads_here_already_keeps_its_bytes_and_signatures():
    body = json.dumps(LEADS_HERE, indent=2).encode()
    assert rewrite_card(body, PUBLIC, UPSTREAM, sign=lambda _: pytest.fail("it is signed")) is body


def test_what_was_changed_or_had_no_signature_is_signed():
    for card in (
        LEADS_HERE | {"url": "http://127.0.0.1:9001/agent"},
        LEADS_HERE | {"signatures": []},
        LEADS_HERE | {"signatures": None},
    ):
        made = json.loads(
            rewrite_card(
                json.dumps(card).encode(),
                PUBLIC,
                UPSTREAM,
                sign=lambda c: c.update(signatures=Raw(b'["ours"]')) is None,
            )
        )
        assert made["signatures"] == ["ours"]
    unsigned = LEADS_HERE | {"url": "http://127.0.0.1:9001/agent"}
    assert "signatures" not in json.loads(
        rewrite_card(json.dumps(unsigned).encode(), PUBLIC, UPSTREAM, sign=lambda _: False)
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"a","url":"http://h"}', True),
        (b'{"jsonrpc":"2.0","name":"a","url":"http://h"}', False),
        (b"[]", False),
        (b"{}", False),
    ],
)
def test_a_card_is_known_by_its_members(body, expected):
    assert is_card(body) is expected


@given(
    st.text(max_size=30) | st.text(max_size=30).map("http://".__add__), st.sampled_from([UPSTREAM, "", "http://[", "x"])
)
def test_no_interface_ever_leads_past_the_proxy(url, upstream):
    card = {"name": "a", "url": url, "supportedInterfaces": [{"url": url}], "additionalInterfaces": [{"url": url}]}
    made = rewritten(card, upstream=upstream)
    addresses = [made["url"]]
    for name in ("supportedInterfaces", "additionalInterfaces"):
        interfaces = made[name]
        assert isinstance(interfaces, list)
        addresses += [one["url"] for one in interfaces]
    assert all(isinstance(address, str) and address.startswith(PUBLIC) for address in addresses)

"""Which headers a card's security schemes make into credentials."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.a2a import credential_headers, credential_headers_of

OLD = {"type": "apiKey", "in": "header", "name": "X-Old-Key"}
NEW = {"apiKeySecurityScheme": {"location": "header", "name": "X-New-Key"}}


@pytest.mark.parametrize(
    ("schemes", "headers"),
    [
        ({"a": OLD}, {b"x-old-key"}),
        ({"a": NEW}, {b"x-new-key"}),
        ({"a": OLD, "b": NEW}, {b"x-old-key", b"x-new-key"}),
        ({"a": {**OLD, "in": "query"}}, set()),
        ({"a": {"apiKeySecurityScheme": {"location": "cookie", "name": "x"}}}, set()),
        ({"a": {"type": "http", "scheme": "bearer"}}, set()),
        ({"a": {**OLD, "name": ""}}, set()),
        ({}, set()),
        ([], set()),
        (None, set()),
    ],
)
def test_api_keys_in_headers_are_credentials_and_nothing_else_is(schemes, headers):
    assert credential_headers({"name": "a", "securitySchemes": schemes}) == headers


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_no_card_is_too_odd(schemes):
    credential_headers({"securitySchemes": schemes})
    assert credential_headers_of(json.dumps({"securitySchemes": schemes}).encode()) == credential_headers(
        {"securitySchemes": schemes}
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"nonsense"])
def test_what_is_no_card_names_nothing(body):
    assert credential_headers_of(body) == frozenset()

"""Masking: what a secret is called and what it looks like."""

from datetime import UTC, datetime

import pytest

from proxy.core.masking import masked


@pytest.mark.parametrize(
    "name",
    ["token", "holdfast-token", "Authorization", "proxy_authorization", "client_secret", "password", "Set-Cookie",
     "apiKey", "api_key", "X-API-Key", "clientSecret", "accessToken", "encryption_key", "credentials"],
)  # fmt: skip
def test_a_field_that_says_it_is_secret_is_masked(name: str) -> None:
    assert masked(name, "open sesame") == "***"
    assert masked("headers", {name: ["open sesame"], "accept": "*/*"}) == {name: "***", "accept": "*/*"}


@pytest.mark.parametrize(
    "name", ["tokens_left_count", "idempotency_key", "key", "author", "broken", "secretary", "url"]
)
def test_a_name_that_only_resembles_one_is_not_masked_for_it(name: str) -> None:
    assert masked(name, "plain") == "plain"


def test_a_password_in_an_address_is_masked() -> None:
    assert masked("url", "http://root:hunter2@agent:80/a") == "http://***@agent:80/a"
    assert masked("url", "http://agent/a@b") == "http://agent/a@b"


def test_numbers_and_nothing_are_kept_as_they_are() -> None:
    assert [masked("tokens", value) for value in (1, 2.5, True, None)] == [1, 2.5, True, None]
    assert masked("token", None) is None


def test_an_instant_is_shown_as_rfc_3339_and_other_objects_as_text() -> None:
    assert masked("at", datetime(2026, 1, 31, 12, tzinfo=UTC)) == "2026-01-31T12:00:00.000000Z"
    assert masked("error", ValueError("hf_abc is wrong")) == "hf_*** is wrong"

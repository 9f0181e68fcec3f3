"""Tokens: their form, their digest, and the headers that carry them."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.tokens import (
    WELL_FORMED,
    Credentials,
    Owner,
    TokenKind,
    check_token,
    digest,
    matches,
    new_token,
    read_credentials,
)

CHANCE = bytes(range(200, 232))
A = "hf_" + "a" * 43
B = "hf_" + "b" * 43


def test_a_token_is_hf_and_43_characters_of_base64url() -> None:
    assert re.fullmatch(r"hf_[A-Za-z0-9_-]{43}", new_token(lambda _: CHANCE))
    assert new_token(lambda count: b"\xff" * count) == "hf_" + "_" * 42 + "8"


def test_all_the_chance_is_in_the_token() -> None:
    others = [bytes(byte ^ (place == at) for at, byte in enumerate(CHANCE)) for place in range(32)]
    source = iter([CHANCE, *others])
    assert len({new_token(lambda _: next(source)) for _ in range(33)}) == 33


def test_a_source_that_gives_too_little_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes of chance, got 3"):
        new_token(lambda _: b"abc")


@given(st.binary(min_size=32, max_size=32))
def test_every_token_we_make_is_accepted_and_matches_its_own_digest_alone(chance: bytes) -> None:
    token = new_token(lambda _: chance)
    assert check_token(token) is None
    assert matches(token, digest(token))
    assert not matches(token + "x", digest(token))


def test_the_digest_is_sha_256_in_hexadecimal() -> None:
    assert digest(A) == hashlib.sha256(A.encode()).hexdigest()


@pytest.mark.parametrize("stored", ["", "zz", digest(B), digest(A).upper(), digest(A) + "0", "\udc80ä"])
def test_no_other_digest_matches(stored: str) -> None:
    assert not matches(A, stored)


@pytest.mark.parametrize("text", ["hf_x", "hf_admin-of.this~place", A, "hf_YWJj==", "hf_" + "x" * 509])
def test_a_token_an_operator_chose_is_accepted(text: str) -> None:
    assert check_token(text) is None


@pytest.mark.parametrize(
    "text", ["", "hf_", "secret", "HF_x", " hf_x", "hf_x ", "hf_a b", "hf_ä", "hf_x\n", "hf_=", "hf_" + "x" * 510]
)
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    problem = check_token(text)
    assert problem is not None
    assert text.strip() == "" or len(text) < 4 or text not in problem


NOBODY = Credentials(token=None, strip_authorization=False)
DENIED = Credentials(token=None, strip_authorization=False, denied=True)
DENIED_STRIPPED = Credentials(token=None, strip_authorization=True, denied=True)


@pytest.mark.parametrize(
    ("own", "authorization", "expected"),
    [
        ([], [], NOBODY),
        ([A], [], Credentials(token=A, strip_authorization=False)),
        ([f"  {A} "], [], Credentials(token=A, strip_authorization=False)),
        ([], [f"Bearer {A}"], Credentials(token=A, strip_authorization=True)),
        ([], [f"bEARER   {A}"], Credentials(token=A, strip_authorization=True)),
        # any other Authorization belongs to the agent
        ([], ["Bearer sk-agent"], NOBODY),
        ([], ["Basic aGZfYQ=="], NOBODY),
        ([], [f"Basic {A}"], NOBODY),
        ([], [A], NOBODY),
        ([], ["Bearer"], NOBODY),
        ([], ["Bearer HF_shouted"], NOBODY),
        ([], ["Bearer one", "Bearer two"], NOBODY),
        ([A], ["Bearer sk-agent"], Credentials(token=A, strip_authorization=False)),
        ([A], ["Bearer one", "Bearer two"], Credentials(token=A, strip_authorization=False)),
        # the same token twice over is one token, and does not reach the agent
        ([A], [f"Bearer {A}"], Credentials(token=A, strip_authorization=True)),
        # where Holdfast-Token is given it counts alone; another token in Authorization does not reach the agent either
        ([A], [f"Bearer {B}"], Credentials(token=A, strip_authorization=True)),
        ([A], ["Bearer hf_"], Credentials(token=A, strip_authorization=True)),
        ([A], [f"Bearer {B}", "Bearer sk-agent"], Credentials(token=A, strip_authorization=True)),
        (["sk-agent"], [f"Bearer {A}"], DENIED_STRIPPED),
        ([A, B], [f"Bearer {A}"], DENIED_STRIPPED),
        # the header that counts is given once
        ([A, B], [], DENIED),
        ([A, A], [], DENIED),
        ([], [f"Bearer {A}", f"Bearer {B}"], DENIED_STRIPPED),
        ([], [f"Bearer {A}", f"Bearer {A}"], DENIED_STRIPPED),
        ([], [f"Bearer {A}", "Bearer sk-agent"], DENIED_STRIPPED),
        # malformed
        ([""], [], DENIED),
        (["sk-agent"], [], DENIED),
        ([f"Bearer {A}"], [], DENIED),
        (["hf_"], [], DENIED),
        ([], ["Bearer hf_"], DENIED_STRIPPED),
        ([], [f"Bearer {A}, Bearer {B}"], DENIED_STRIPPED),
        ([], [f"Bearer {A} x"], DENIED_STRIPPED),
        ([], [f"Bearer {A}\nX: y"], DENIED_STRIPPED),
    ],
)
def test_credentials_are_read_from_the_headers(own: list[str], authorization: list[str], expected: Credentials) -> None:
    assert read_credentials(holdfast_token=own, authorization=authorization) == expected


HEADER = st.one_of(
    st.sampled_from([A, B, f"Bearer {A}", f"bearer\t{B}", "Bearer sk", "", "hf_", "Bearer hf_", f"Bearer  {A}, x"]),
    st.text(max_size=20),
)


@given(st.lists(HEADER, max_size=3), st.lists(HEADER, max_size=3))
@example(own=[], authorization=[f"Bearer {A}"])
def test_a_token_in_authorization_never_reaches_the_agent(own: list[str], authorization: list[str]) -> None:
    found = read_credentials(holdfast_token=own, authorization=authorization)
    assert not (found.denied and found.token is not None)
    assert found.token is None or WELL_FORMED.fullmatch(found.token)
    if any(value.strip().lower().startswith("bearer ") and " hf_" in value for value in authorization):
        assert found.strip_authorization or found.denied


def test_credentials_do_not_show_the_token() -> None:
    shown = repr(read_credentials(holdfast_token=[A], authorization=[]))
    assert A not in shown
    assert "hf_***" in shown


@pytest.mark.parametrize(
    ("owner", "caller"),
    [
        (Owner(kind=TokenKind.ADMIN), "admin"),
        (Owner(kind=TokenKind.WORKSPACE, name="a"), "workspace:a"),
        (Owner(kind=TokenKind.CLIENT, name="x"), "client:x"),
        (Owner(kind=TokenKind.JOIN, name="fleet"), "join:fleet"),
        (Owner(kind=TokenKind.READ, name="grafana"), "read:grafana"),
    ],
)
def test_an_owner_has_one_name_as_a_caller(owner: Owner, caller: str) -> None:
    assert owner.caller == caller


@pytest.mark.parametrize(
    ("kind", "name"), [(TokenKind.ADMIN, "root"), (TokenKind.CLIENT, ""), (TokenKind.WORKSPACE, "")]
)
def test_only_the_admin_is_nameless(kind: TokenKind, name: str) -> None:
    with pytest.raises(ValueError, match="has no name"):
        Owner(kind=kind, name=name)

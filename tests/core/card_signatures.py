"""Verifying the signature of an agent card with the SDK's reading and canonical JSON, and a published set of keys."""

import base64
import json
from typing import Any

from a2a.client.card_resolver import parse_agent_card
from a2a.types.a2a_pb2 import AgentCard
from a2a.utils import _jcs
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from google.protobuf.json_format import MessageToDict


def read_as_the_sdk_does(card: dict[str, Any]) -> AgentCard:
    return parse_agent_card(json.loads(json.dumps(card)))


def payload_of(card: AgentCard) -> bytes:
    """What a reader of the protobuf checks the signature against."""
    read = MessageToDict(card)
    read.pop("signatures", None)
    return _jcs.canonicalize(_clean(read)).encode()


def _clean(value: Any) -> Any:
    """Without what is empty, as the specification says of a card that is signed (A2A v1.0 section 8.4.1)."""
    if isinstance(value, dict):
        return {name: one for name, inner in value.items() if (one := _clean(inner)) is not None} or None
    if isinstance(value, list):
        return [one for inner in value if (one := _clean(inner)) is not None] or None
    return None if value == "" else value


def check(card: AgentCard, jwks: dict[str, Any]) -> dict[str, Any]:
    """Verify a card's only signature; return its protected header.

    Raises:
        InvalidSignature: it is of another card, or of another key.
    """
    (signature,) = card.signatures
    header: dict[str, Any] = json.loads(_decoded(signature.protected))
    (jwk,) = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    x, y = (int.from_bytes(_decoded(jwk[name])) for name in ("x", "y"))
    raw = _decoded(signature.signature)
    dss = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    body = base64.urlsafe_b64encode(payload_of(card)).rstrip(b"=").decode()
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(dss, f"{signature.protected}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    return header


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

"""A pool that may dial this host, and scripted upstreams; every test runs on asyncio and on uvloop."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl

import pytest
import pytest_asyncio
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from forward.scripted_upstream import Peer

from proxy.core.addresses import AddressPolicy
from proxy.forward.pool import Pool, PoolSettings


def pytest_asyncio_loop_factories(config, item):
    """Nothing here may depend on which of the two loops runs it."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def make_pool():
    """Make pools: `make_pool(connections_per_origin=1)`; loopback IPv4 is allowed."""
    pools = []

    def make(*, allow=("127.0.0.0/8",), lookup=None, tls=None, **settings):
        more = {"lookup": lookup} if lookup else {}
        pool = Pool(AddressPolicy.parse(allow), PoolSettings(**settings), tls=tls, **more)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        await pool.aclose()


@pytest.fixture
def pool(make_pool):
    return make_pool()


@pytest_asyncio.fixture
async def serve():
    """Start scripted upstreams, which are stopped when the test ends."""
    peers = []

    async def start(script, tls=None):
        peer = Peer(script)
        await peer.start(tls)
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
def dial(make_pool, serve, tls_pair):
    """Start an upstream, with TLS or without, and a pool that trusts it."""

    async def start(script, *, secure):
        return make_pool(tls=tls_pair[1]), await serve(script, tls_pair[0] if secure else None)

    return start


@pytest.fixture
def refused_port():
    """Give a port of this host on which nobody listens, and keep it from others."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def tls_pair(tmp_path_factory):
    """Give (server context, client context) for `agent.test` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "agent.test")])
    names = [x509.DNSName("agent.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "pair.pem").write_bytes(secret + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "pair.pem")
    return server, ssl.create_default_context(cadata=pem.decode())

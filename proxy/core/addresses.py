"""Which upstream addresses may be dialled at all (protection against server-side request forgery).

Owns: the table of address ranges, what an administrator may lift, the reading of an upstream URL.
Knows nothing of: name resolution (it judges the addresses that a resolver found), connections, workspaces.

Whoever can register a URL makes Holdfast send requests there. So every address is judged, in this order (first match):

| rule            | ranges                                                                      | may be allowed? |
| --------------- | --------------------------------------------------------------------------- | --------------- |
| `metadata`      | the clouds' instance metadata services, wherever their address lies          | never           |
| `unspecified`   | 0.0.0.0/8, ::                                                               | never           |
| `loopback`      | 127.0.0.0/8, ::1                                                            | yes             |
| `link_local`    | 169.254.0.0/16, fe80::/10                                                   | never           |
| `multicast`     | 224.0.0.0/4, ff00::/8                                                       | never           |
| `shared`        | 100.64.0.0/10 (carrier-grade NAT, RFC 6598)                                 | never           |
| `documentation` | 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 3fff::/20     | never           |
| `private`       | 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918), fd00::/8 (RFC 4193)   | yes             |
| `reserved`      | what else is no public unicast address (IANA special-purpose registries)    | never           |

"Allowed" means: inside one of the administrator's `upstream_allow` networks, or loopback, for the URL of a child that
Holdfast started itself: it runs on this host, and its token, which may change that URL, opens nothing else. An IPv6
address that only wraps an IPv4 address (mapped, NAT64, 6to4) is judged as that IPv4 address.
"""

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_LIFTABLE = frozenset({"loopback", "private"})

_RANGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "metadata",
        (
            "169.254.169.254/32",  # AWS, Azure, Google Cloud, OpenStack, Oracle and most others
            "169.254.170.0/24",  # AWS container and pod credentials
            "100.100.100.200/32",  # Alibaba Cloud
            "168.63.129.16/32",  # Azure's host service, a public address that only exists inside
            "192.0.0.192/32",  # Oracle Cloud
            "fd00:ec2::/32",  # AWS
            "fd20:ce::254/128",  # Google Cloud
            "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud
            "fd00:42::42/128",  # Scaleway
        ),
    ),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link_local", ("169.254.0.0/16", "fe80::/10")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("shared", ("100.64.0.0/10",)),
    ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")),
    (
        "reserved",
        (
            "192.0.0.0/24",  # IETF protocol assignments
            "192.88.99.0/24",  # the retired 6to4 relay
            "198.18.0.0/15",  # benchmarks
            "240.0.0.0/4",  # class E and the broadcast address
            "::/96",  # IPv4-compatible, retired
            "::ffff:0:0:0/96",  # IPv4-translated, retired
            "64:ff9b:1::/48",  # local-use NAT64
            "100::/64",  # discard
            "2001::/23",  # Teredo and other protocol assignments
            "5f00::/16",  # segment routing
            "fc00::/8",  # the unassigned half of the unique local addresses
            "fec0::/10",  # site-local, retired
            "::/3",  # whatever else is not in 2000::/3, all that is given out as global unicast (RFC 4291, 2.4)
            "4000::/2",
            "8000::/1",
        ),
    ),
)
_TABLE: tuple[tuple[str, IPNetwork], ...] = tuple(
    (rule, ip_network(network)) for rule, networks in _RANGES for network in networks
)
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCALHOST = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

_FORBIDDEN_IN_URL = re.compile(r"[^\x21-\x7e]|[\\\"<>^`{|}]")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?P<fragment>#.*)?")
_AUTHORITY = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]*)\]|(?P<host>[^:\[\]]*))(?P<colon>:(?P<port>.*))?")
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?")
_LOOKS_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


class UnsafeUrl(ValueError):  # noqa: N818 - it says what is true of the URL; the callers' contract names it so
    """An upstream URL, or an address its name resolved to, that must not be dialled.

    Args:
        rule: machine word of what is wrong: a rule of the module's table, or `url`, `scheme`, `userinfo`, `fragment`,
            `host`, `numeric_host`, `port`, `unresolved`.
        message: one sentence that may be shown to whoever registered the URL (it quotes no user name or password).
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """What the administrator lifted: networks in which loopback and private addresses may be dialled."""

    allow: tuple[IPNetwork, ...] = ()

    @classmethod
    def parse(cls, networks: Iterable[str]) -> "AddressPolicy":
        """Read networks in CIDR notation; ValueError names the one that is wrong."""
        return cls(allow=tuple(ip_network(network.strip()) for network in networks))


STRICT = AddressPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedUrl:
    """An upstream URL whose form is sound; `address` is set where the host is a literal.

    `host` is lower case, without brackets. `target` is the rest as it was written: path and query.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: IPAddress | None = None

    @property
    def authority(self) -> str:
        """Give the value of the `Host` header (RFC 9110 section 7.2): the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def classify(address: IPAddress, policy: AddressPolicy = STRICT, *, own_child: bool = False) -> str | None:
    """Name the rule that forbids an address, or None where it may be dialled.

    `own_child`: the URL is that of a process which Holdfast started itself on this host, so loopback is expected.
    """
    address = _unwrapped(address)
    rule = next((rule for rule, network in _TABLE if address in network), None)
    at_home = own_child and rule == "loopback"
    if at_home or (rule in _LIFTABLE and any(address in network for network in policy.allow)):
        return None
    return rule


def check_addresses(addresses: Iterable[str], policy: AddressPolicy, *, own_child: bool = False) -> tuple[str, ...]:
    """Judge every address a name resolved to and give them back in order, each once.

    One forbidden address condemns the name: a name that points inwards only now and then is an attack, not a mishap.

    Raises:
        UnsafeUrl: one is forbidden (`rule` says why), none was given, or one is no address (`unresolved`).
    """
    checked = tuple(dict.fromkeys(addresses))
    if not checked:
        raise UnsafeUrl("unresolved", "the upstream's name resolves to no address")
    for text in checked:
        try:
            address = ip_address(text)
        except ValueError:
            raise UnsafeUrl("unresolved", "the upstream's name resolves to something that is no address") from None
        _refuse(classify(address, policy, own_child=own_child))
    return checked


def check_url(url: str, policy: AddressPolicy, *, implicit: AbstractSet[tuple[str, int]] = frozenset()) -> CheckedUrl:
    """Read an upstream URL (`read_url`) and judge its host as far as it can be judged without asking a resolver.

    A literal address is judged like any address, and `localhost` (RFC 6761 section 6.3) as loopback. Every other name
    is judged by its addresses, with `check_addresses`, whenever it is dialled.

    Args:
        url: what was registered or configured.
        policy: what the administrator lifted.
        implicit: (host, port) of children that Holdfast started itself; host in lower case.

    Raises:
        UnsafeUrl: with the rule that was broken.
    """
    checked = read_url(url)
    own_child = (checked.host, checked.port) in implicit
    name = checked.host.rstrip(".")
    if checked.address is not None:
        _refuse(classify(checked.address, policy, own_child=own_child))
    elif name == "localhost" or name.endswith(".localhost"):
        verdicts = [classify(address, policy, own_child=own_child) for address in _LOCALHOST]
        _refuse(None if None in verdicts else verdicts[0])
    return checked


def read_url(url: str) -> CheckedUrl:
    """Read an upstream URL, refusing what is not plainly `http(s)://host[:port][/path][?query]`; no address is judged.

    An IPv4 address must be written as four decimal numbers: the octal, hexadecimal, short and single-number spellings
    are understood differently by different resolvers.

    Raises:
        UnsafeUrl: with the rule that was broken.
    """
    match = _URL.fullmatch(url)
    if _FORBIDDEN_IN_URL.search(url) or match is None:
        raise UnsafeUrl("url", "the upstream URL is not http(s)://host[:port][/path] in plain ASCII")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise UnsafeUrl("scheme", "the upstream URL must begin with http:// or https://")
    if "@" in match["authority"]:
        raise UnsafeUrl("userinfo", "the upstream URL must not hold a user name or password")
    if match["fragment"] is not None:
        raise UnsafeUrl("fragment", "the upstream URL must not hold a fragment")
    parts = _AUTHORITY.fullmatch(match["authority"])
    if parts is None:
        raise UnsafeUrl("host", "the upstream URL's host cannot be read")
    port = _port(parts["port"]) if parts["colon"] else _DEFAULT_PORTS[scheme]
    host, address = _host(parts["literal"], parts["host"])
    return CheckedUrl(scheme=scheme, host=host, port=port, target=match["rest"], address=address)


def _refuse(rule: str | None) -> None:
    if rule is None:
        return
    cure = "; an administrator can allow it (upstream_allow)" if rule in _LIFTABLE else ""
    raise UnsafeUrl(rule, f"the upstream is not publicly routable: its address is {rule.replace('_', '-')}{cure}")


def _unwrapped(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= _MAX_PORT:
        raise UnsafeUrl("port", "the upstream URL's port must be a number from 1 to 65535")
    return int(text)


def _host(literal: str | None, name: str | None) -> tuple[str, IPAddress | None]:
    if literal is not None:
        try:
            return literal.lower(), IPv6Address(literal)
        except ValueError:
            raise UnsafeUrl("host", "the upstream URL's host is not an IPv6 address") from None
    host = (name or "").lower()
    if not _NAME.fullmatch(host):
        raise UnsafeUrl("host", "the upstream URL needs a host: a name in ASCII or an address")
    if not _LOOKS_NUMERIC.fullmatch(host):
        return host, None
    try:
        return host, IPv4Address(host)
    except ValueError:
        raise UnsafeUrl(
            "numeric_host", "an IPv4 address in the upstream URL must be written as four decimal numbers"
        ) from None

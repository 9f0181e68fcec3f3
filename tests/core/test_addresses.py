"""Which upstream URLs and addresses may be dialled (scenario 29, and every spelling of an address we know of)."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import STRICT, AddressPolicy, UnsafeUrl, check_addresses, check_url, classify, read_url

EVERYTHING = AddressPolicy.parse(["0.0.0.0/0", "::/0"])
LOCAL = AddressPolicy.parse(["127.0.0.0/8", "::1/128"])

RULES = [
    ("8.8.8.8", None),
    ("2606:4700:4700::1111", None),
    ("172.15.255.255", None),
    ("172.32.0.0", None),
    ("100.63.255.255", None),
    ("100.128.0.0", None),
    ("169.253.255.255", None),
    ("223.255.255.255", None),
    ("0.0.0.0", "unspecified"),  # noqa: S104 - judged, never bound
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("::1", "loopback"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("169.254.0.1", "link_local"),
    ("fe80::1", "link_local"),
    ("febf::1", "link_local"),
    ("fe80::1%eth0", "link_local"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("ff02::1", "multicast"),
    ("100.64.0.1", "shared"),
    ("100.127.255.255", "shared"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("2001:db8::1", "documentation"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("fd12:3456::1", "private"),
    ("fc00::1", "reserved"),
    ("fec0::1", "reserved"),
    ("200::1", "reserved"),
    ("100:0:0:1::1", "reserved"),
    ("4000::1", "reserved"),
    ("e000::1", "reserved"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("198.18.0.1", "reserved"),
    ("192.0.0.1", "reserved"),
    ("::7f00:1", "reserved"),
    ("2001::1", "reserved"),
]
WRAPPED = [
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:8.8.8.8", None),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::808:808", None),
    ("2002:7f00:1::1", "loopback"),
    ("2002:0a00:1::1", "private"),
]


@pytest.mark.parametrize(("address", "rule"), RULES + WRAPPED)
def test_every_range_has_its_rule(address, rule):
    assert classify(ip_address(address)) == rule


@pytest.mark.parametrize(("address", "rule"), RULES + WRAPPED)
def test_an_allow_list_lifts_loopback_and_private_and_nothing_else(address, rule):
    lifted = None if rule in {"loopback", "private"} else rule
    assert classify(ip_address(address), EVERYTHING) == lifted


@pytest.mark.parametrize(("address", "rule"), RULES + WRAPPED)
def test_a_child_of_our_own_lifts_loopback_alone(address, rule):
    lifted = None if rule == "loopback" else rule
    assert classify(ip_address(address), STRICT, own_child=True) == lifted


def test_an_allow_list_lifts_only_what_it_names():
    policy = AddressPolicy.parse(["10.1.0.0/16"])
    assert classify(ip_address("10.1.2.3"), policy) is None
    assert classify(ip_address("::ffff:10.1.2.3"), policy) is None
    assert classify(ip_address("10.2.0.1"), policy) == "private"
    assert classify(ip_address("127.0.0.1"), policy) == "loopback"


@given(st.ip_addresses())
def test_wrapping_an_ipv4_address_never_changes_the_judgement(address):
    if address.version == 4:
        packed = int(address)
        for wrapped in (f"::ffff:{address}", f"64:ff9b::{packed >> 16:x}:{packed & 0xFFFF:x}"):
            assert classify(ip_address(wrapped)) == classify(address)
    else:
        assert classify(address, EVERYTHING) in {None, classify(address)}


@pytest.mark.parametrize("networks", [["10.0.0.1/8"], ["nonsense"], ["10.0.0.0/33"]])
def test_a_network_that_cannot_be_read_is_named(networks):
    with pytest.raises(ValueError, match=networks[0].split("/")[0]):
        AddressPolicy.parse(networks)


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("http://agent.example.com", ("http", "agent.example.com", 80, ""), "agent.example.com"),
        ("HTTPS://Agent.Example.com/a2a/", ("https", "agent.example.com", 443, "/a2a/"), "agent.example.com"),
        ("http://8.8.8.8:9000/x?y=%41&z=//..", ("http", "8.8.8.8", 9000, "/x?y=%41&z=//.."), "8.8.8.8:9000"),
        ("https://[2606:4700::1]:8443?q", ("https", "2606:4700::1", 8443, "?q"), "[2606:4700::1]:8443"),
        ("http://[2606:4700::1]/", ("http", "2606:4700::1", 80, "/"), "[2606:4700::1]"),
        ("http://my_service-1:80/", ("http", "my_service-1", 80, "/"), "my_service-1"),
        ("http://xn--bcher-kva.example/", ("http", "xn--bcher-kva.example", 80, "/"), "xn--bcher-kva.example"),
        ("http://1.2.3.4.example.com/", ("http", "1.2.3.4.example.com", 80, "/"), "1.2.3.4.example.com"),
    ],
)
def test_a_sound_url_is_read_into_its_parts(url, parts, authority):
    checked = check_url(url, STRICT)
    assert (checked.scheme, checked.host, checked.port, checked.target) == parts
    assert checked.authority == authority


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "url"),
        ("agent.example.com", "url"),
        ("//agent.example.com", "url"),
        ("http:agent.example.com", "url"),
        ("http:/agent.example.com", "url"),
        ("http://agent.example.com/a b", "url"),
        ("http://agent.example.com/\r\nX: y", "url"),
        ("http://agent.example.com/\n", "url"),
        ("http://agent.example.com\\@127.0.0.1/", "url"),
        ("http://bücher.example/", "url"),
        ("http://\uff11\uff12\uff17.0.0.1/", "url"),
        ("ftp://agent.example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1/", "scheme"),
        ("http+unix://x/", "scheme"),
        ("http://user@agent.example.com/", "userinfo"),
        ("http://user:secret@agent.example.com/", "userinfo"),
        ("http://8.8.8.8@127.0.0.1/", "userinfo"),
        ("http://agent.example.com/#top", "fragment"),
        ("http://agent.example.com#", "fragment"),
        ("http://", "host"),
        ("http:///path", "host"),
        ("http://:80/", "host"),
        ("http://[]/", "host"),
        ("http://[::1/", "host"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://[::ffff:127.0.0.1]x/", "host"),
        ("http://[v1.fe]/", "host"),
        ("http://%31%32%37.0.0.1/", "host"),
        ("http://a..b/", "host"),
        ("http://.a/", "host"),
        ("http://" + "a" * 64 + "/", "host"),
        ("http://" + "a." * 127 + "example/", "host"),
        ("http://agent.example.com:/", "port"),
        ("http://agent.example.com:0/", "port"),
        ("http://agent.example.com:65536/", "port"),
        ("http://agent.example.com:99999999/", "port"),
        ("http://agent.example.com:-1/", "port"),
        ("http://agent.example.com:80:80/", "port"),
        ("http://agent.example.com:8_0/", "port"),
        ("http://2130706433/", "numeric_host"),
        ("http://0x7f000001/", "numeric_host"),
        ("http://0x7f.1/", "numeric_host"),
        ("http://017700000001/", "numeric_host"),
        ("http://0177.0.0.1/", "numeric_host"),
        ("http://127.1/", "numeric_host"),
        ("http://127.0.0.1./", "numeric_host"),
        ("http://127.0.0.01/", "numeric_host"),
        ("http://256.1.1.1/", "numeric_host"),
        ("http://agent.0x/", "numeric_host"),
        ("http://127.0.0.1/", "loopback"),
        ("http://[::1]/", "loopback"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
        ("http://localhost/", "loopback"),
        ("http://LOCALHOST./", "loopback"),
        ("http://agent.localhost:8000/", "loopback"),
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://[fd00:ec2::254]/", "metadata"),
        ("http://[fe80::1]/", "link_local"),
        ("http://0.0.0.0/", "unspecified"),
        ("http://[::]/", "unspecified"),
        ("http://192.168.1.1/", "private"),
    ],
)
def test_an_unsafe_url_is_refused_by_its_rule(url, rule):
    with pytest.raises(UnsafeUrl) as refusal:
        check_url(url, STRICT)
    assert refusal.value.rule == rule
    assert "secret" not in str(refusal.value)


@given(st.text(max_size=40) | st.from_regex(r"https?://[^/]{0,30}/?.{0,10}", fullmatch=True))
def test_reading_any_text_gives_a_url_or_a_refusal(text):
    try:
        checked = read_url(text)
    except UnsafeUrl:
        return
    again = read_url(f"{checked.scheme}://{checked.authority}{checked.target}")
    assert again == checked


def test_loopback_is_allowed_by_name_and_by_address_where_the_administrator_lifted_it():
    for url in ("http://127.0.0.1:9/", "http://localhost:9/", "http://[::1]:9/", "http://[::ffff:127.0.0.2]:9/"):
        assert check_url(url, LOCAL).port == 9
    assert check_url("http://localhost/", AddressPolicy.parse(["::1/128"])).host == "localhost"


def test_a_childs_own_url_is_allowed_for_exactly_its_host_and_port():
    implicit = frozenset({("127.0.0.1", 9001), ("169.254.169.254", 80)})
    assert check_url("http://127.0.0.1:9001/a2a", STRICT, implicit=implicit).port == 9001
    for url in ("http://127.0.0.1:9002/", "http://127.0.0.2:9001/", "http://169.254.169.254/"):
        with pytest.raises(UnsafeUrl):
            check_url(url, STRICT, implicit=implicit)


def test_one_forbidden_address_condemns_a_name():
    assert check_addresses(["8.8.8.8", "8.8.4.4", "8.8.8.8"], STRICT) == ("8.8.8.8", "8.8.4.4")
    for addresses, rule in (
        (["8.8.8.8", "127.0.0.1"], "loopback"),
        (["169.254.169.254"], "metadata"),
        (["fe80::1%2"], "link_local"),
        ([], "unresolved"),
        (["agent.example.com"], "unresolved"),
    ):
        with pytest.raises(UnsafeUrl) as refusal:
            check_addresses(addresses, STRICT)
        assert refusal.value.rule == rule


def test_a_child_of_our_own_may_be_local_but_never_a_metadata_service():
    assert check_addresses(["127.0.0.1", "::1"], STRICT, own_child=True) == ("127.0.0.1", "::1")
    with pytest.raises(UnsafeUrl):
        check_addresses(["169.254.169.254"], STRICT, own_child=True)

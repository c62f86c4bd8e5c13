"""Addresses are written and read in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import addresses

HOSTS = st.one_of(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), st.ip_addresses().map(str))


@given(HOSTS, st.integers(0, 65535))
def test_law_what_is_joined_splits_again(host: str, port: int) -> None:
    """Names, IPv4 and IPv6 addresses come back as they were."""
    assert addresses.split(addresses.join(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text, want", [("[::1]:443", ("::1", 443)), ("hub.example:443", ("hub.example", 443))]
)
def test_brackets_are_of_the_text_only(text: str, want: tuple[str, int]) -> None:
    """An IPv6 address has brackets in text, and none as a host."""
    assert addresses.split(text) == want
    assert addresses.join(*want) == text


def test_a_port_is_a_number() -> None:
    """What has no port is no address."""
    with pytest.raises(ValueError):
        addresses.split("hub.example")

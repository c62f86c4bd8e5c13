"""The CA is made once and kept; what it issues belongs to it."""

import datetime as dt
import itertools
import pathlib

import pytest

from coordinator.clients import authority
from coordinator.issuing import certificate_authority
from federation.trust import credentials
from federation.trust import identity as identities

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def make(path: pathlib.Path, trust_domain: str = "hanse.local") -> authority.Authority:
    """An authority with a fixed clock."""
    serials = itertools.count(1)
    ca = authority.load_or_create(path, trust_domain, now=NOW, new_serial=lambda: next(serials))
    return authority.Authority(
        ca,
        now=lambda: NOW,
        new_serial=lambda: next(serials),
        lifetimes=authority.Lifetimes(client=dt.timedelta(minutes=5)),
    )


def test_a_restart_keeps_the_ca(tmp_path: pathlib.Path) -> None:
    """The pin that edges hold stays good, and the key is readable by this user only."""
    first = make(tmp_path / "ca")
    assert make(tmp_path / "ca").pin == first.pin
    assert (tmp_path / "ca" / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_ca_of_another_trust_domain_is_refused(tmp_path: pathlib.Path) -> None:
    """A state directory cannot be used for two federations by mistake."""
    make(tmp_path / "ca")
    with pytest.raises(certificate_authority.AuthorityUnusable):
        make(tmp_path / "ca", "other.example")


def test_each_kind_has_its_lifetime(tmp_path: pathlib.Path) -> None:
    """A client's certificate ends when its lifetime says."""
    identity = identities.ClientIdentity("hanse.local", "zurich", "cardiology", "hospitals", "heart")
    make(tmp_path / "ca").equip(tmp_path / "client", identity)
    own = credentials.CredentialDirectory(tmp_path / "client")
    assert own.identity() == identity
    assert own.expires_at() == NOW + dt.timedelta(minutes=5)

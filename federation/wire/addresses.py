"""Where somebody listens, as text: `host:port`, with brackets around an IPv6 address.

Every part of a federation writes and reads addresses in this one form. This module resolves nothing.

Law: `split(join(host, port)) == (host, port)`.
"""

from __future__ import annotations


def split(address: str) -> tuple[str, int]:
    """Return host, without brackets, and port. Raises: ValueError if the port is no number."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def join(host: str, port: int | str) -> str:
    """Return host:port; a host that is an IPv6 address gets its brackets."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"

"""TLS 1.3 and nothing older, although gRPC's Python API has no switch for it.

gRPC reads GRPC_SSL_CIPHER_SUITES once, when the module `grpc` is imported. The list governs TLS 1.2 only; TLS
1.3 has suites of its own. With one suite in it that needs an RSA certificate, no TLS 1.2 handshake can end
well in a federation, whose certificates are all ECDSA. The variable is inherited by child processes.
This module imports no grpc, and must be imported before it. Where that did not happen, the server's
interceptor still refuses every call over anything older than TLS 1.3; processes call `require()` when they
start.

Source: grpc issues 28382 and 37305; tests/loopback/test_trust_tls.py proves it with both outcomes.
"""

from __future__ import annotations

import os
import sys
from typing import Final

VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
RSA_ONLY_SUITE: Final = "ECDHE-RSA-AES128-GCM-SHA256"


class Tls12NotExcluded(RuntimeError):
    """The process imported grpc before federation.trust, so its channels would accept TLS 1.2."""


def _exclude_tls12() -> bool:
    """Set the variable, and say whether gRPC reads it with this value."""
    in_time = "grpc" not in sys.modules or os.environ.get(VARIABLE) == RSA_ONLY_SUITE
    os.environ[VARIABLE] = RSA_ONLY_SUITE
    return in_time


EXCLUDED: Final = _exclude_tls12()


def require() -> None:
    """Make sure that this process speaks TLS 1.3 only; for the first lines of each process.

    Raises: Tls12NotExcluded.
    """
    if not EXCLUDED:
        raise Tls12NotExcluded(
            "grpc was imported before federation.trust and would accept TLS 1.2; "
            f"import federation.trust first, or start the process with {VARIABLE}={RSA_ONLY_SUITE}"
        )

"""`python -m edge_agent --config FILE`."""

from __future__ import annotations

# Before anything imports grpc, which reads at its import the variable that shuts out TLS 1.2.
import federation.trust.tls  # noqa: F401

# isort: split
import sys

from edge_agent import app

if __name__ == "__main__":
    sys.exit(app.main())

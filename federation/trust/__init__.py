"""Identities, certificates and TLS: who is at the other end of a connection, and what it may call.

Importing this package excludes TLS 1.2 from gRPC (see `tls.py`), so import it before grpc.
"""

from federation.trust import tls as tls

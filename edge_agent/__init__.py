"""The data owner's side of Hanse: joins, decides by the owner's policy, runs clients beside the data."""

import federation.trust  # noqa: F401  (before anything imports grpc: it decides which TLS gRPC speaks)

"""The hub's side of Hanse: the coordinator, one aggregator for each training, and the `hanse` command."""

import federation.trust  # noqa: F401  (before anything imports grpc: it decides which TLS gRPC speaks)

"""What travels between hub and edges: the protocol, the codec of messages, limits and denials.

Decoding and bookkeeping here are sans-IO: bytes and events in, bytes and events out, so that both
sides and every test run the same code. Nothing in this package knows of sockets, files or Flower.
"""

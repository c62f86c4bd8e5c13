"""What can be wrong with the bytes that a peer sends, one type for each way.

The codec raises these; federation/wire/transfers.py adds the ways in which frames can be out of order. What
is done about a broken message is decided by whoever reads it.
"""

from __future__ import annotations


class WireError(Exception):
    """A peer sent what the protocol does not allow; what it was sending is void."""


class BadMagic(WireError):
    """The stream does not begin as a message of this protocol does."""

    def __init__(self, want: bytes, got: bytes) -> None:
        super().__init__(f"a message begins with {want!r}, got {got!r}")
        self.want, self.got = want, got


class HeaderTooLarge(WireError):
    """The announced header is above the limit."""

    def __init__(self, want_bytes: int, got_bytes: int) -> None:
        super().__init__(f"header of {got_bytes} bytes, at most {want_bytes} are allowed")
        self.want_bytes, self.got_bytes = want_bytes, got_bytes


class HeaderCorrupted(WireError):
    """The header's bytes do not have the announced checksum."""

    def __init__(self, want: bytes, got: bytes) -> None:
        super().__init__(f"header checksum {got.hex()}, want {want.hex()}")
        self.want, self.got = want, got


class HeaderInvalid(WireError):
    """The header arrived whole and says something impossible."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid message header: {reason}")
        self.reason = reason


class TooManyArrays(WireError):
    """The header names more arrays than allowed."""

    def __init__(self, want: int, got: int) -> None:
        super().__init__(f"message of {got} arrays, at most {want} are allowed")
        self.want, self.got = want, got


class ArrayTooLarge(WireError):
    """The header announces an array above the limit."""

    def __init__(self, name: str, want_bytes: int, got_bytes: int) -> None:
        super().__init__(f"array {name!r} of {got_bytes} bytes, at most {want_bytes} are allowed")
        self.name, self.want_bytes, self.got_bytes = name, want_bytes, got_bytes


class MessageTooLarge(WireError):
    """The message announces more bytes than allowed."""

    def __init__(self, want_bytes: int, got_bytes: int) -> None:
        super().__init__(f"message of {got_bytes} bytes, at most {want_bytes} are allowed")
        self.want_bytes, self.got_bytes = want_bytes, got_bytes


class ArrayCorrupted(WireError):
    """An array's bytes do not have the digest that names it."""

    def __init__(self, name: str, want: bytes, got: bytes) -> None:
        super().__init__(f"array {name!r} has digest {got.hex()}, want {want.hex()}")
        self.name, self.want, self.got = name, want, got


class UnknownHeldArray(WireError):
    """The sender omits an array that the receiver does not hold."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(f"array {digest.hex()} was omitted but is not held here")
        self.digest = digest


class TrailingBytes(WireError):
    """There are bytes after the end of the message."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} bytes after the end of the message")
        self.count = count


class Truncated(WireError):
    """The stream ended before the message did."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the stream ended at byte {position}, before the message did")
        self.position = position


class DecoderUnusable(WireError):
    """Bytes came after an error; nothing can be made of them."""

    def __init__(self) -> None:
        super().__init__("an earlier error made this message unreadable")

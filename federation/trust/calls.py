"""Opening a stream so that a refusal is always understood.

When a server ends a call while its client is writing, grpc.aio mostly replaces the status that the server
sent by an INTERNAL of its own, and the denial is lost (grpc issue 36066, open). A client that writes nothing
before the guard has let it in cannot lose the denial of an opening:

    call = stub.Session()
    await calls.admitted(call)               # raises AioRpcError with the denial, if there is one
    await call.write(...)

A stream that is cut later, in the middle of a write, may still end with INTERNAL (or
asyncio.InvalidStateError from `write`) instead of its reason; whoever dials again learns the reason then.
This module refuses to know what is said.
"""

from __future__ import annotations

from typing import Final

import grpc.aio

# What the guard puts in the initial metadata of a stream that it lets in.
ADMITTED_KEY: Final = "hanse-admitted"


async def admitted(call: grpc.aio.StreamStreamCall | grpc.aio.StreamUnaryCall) -> None:
    """Wait until the guard of the server has let this streaming call in. Write nothing before.

    Raises: grpc.aio.AioRpcError with the server's status, see `denials.from_rpc_error`.
    """
    if ADMITTED_KEY not in await call.initial_metadata():
        await call.code()  # waits for the end, which is on its way
    await call.wait_for_connection()  # raises if the call has ended

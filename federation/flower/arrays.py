"""Arrays whose serialised bytes lie in a file, so that many updates do not need much memory.

A received array is written to a SpoolFile as it comes and given to the app as a SpooledArray: an
ordinary flwr Array to whoever looks at it, but its bytes are read when they are asked for. Whether an
array is acceptable, and which message it belongs to, is not known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import os
import pathlib
import queue
import tempfile
import threading
import weakref
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array

from federation import durable
from federation.wire import codec

NUMPY_SERIALIZATION = "numpy.ndarray"
KEPT_DIGEST = "_hanse_digest"
"""The attribute in which an Array keeps its digest, beside the bytes object that it is of."""

HEADER_READ_BYTES = 4096
"""The header of a .npy file is 128 bytes long for all but structured dtypes; longer ones are read whole."""


class _Closer:
    """Closes files on a thread of its own: giving the room of a large one back takes tens of milliseconds.

    Files come from finalizers, which run anywhere, so the queue is one that may be put to from there.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int | threading.Event] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pid = 0

    def start(self) -> None:
        """Start the thread, unless this process has it."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name="spool-closer", daemon=True).start()

    def close(self, fd: int) -> None:
        """Close a file soon."""
        self._queue.put(fd)

    def flush(self) -> None:
        """Wait until every file that was given before is closed."""
        done = threading.Event()
        self._queue.put(done)
        done.wait()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, int):
                os.close(item)
            else:
                item.set()


closer = _Closer()


class SpoolFile:
    """A file of regions; one that is made without a name is gone with its process, however that went.

    Regions of it may be written and read by several threads at once. The file is closed when the last
    region and array that lies in it is gone, on a thread of its own.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Make a file without a name in `directory`; raises OSError."""
        self._take(_unnamed_file(directory))

    def _take(self, fd: int) -> None:
        self._fd = fd
        self.writable = True
        self._lock = threading.Lock()
        self._end = os.fstat(fd).st_size
        closer.start()
        self._finalizer = weakref.finalize(self, closer.close, self._fd)

    @classmethod
    def create(cls, path: pathlib.Path) -> SpoolFile:
        """Make a file that outlives its process; raises OSError, also if it is there."""
        made = cls.__new__(cls)
        made._take(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return made

    @classmethod
    def open(cls, path: pathlib.Path, *, to_write: bool = False) -> SpoolFile:
        """Open such a file to read it, or to write it as well; raises OSError."""
        opened = cls.__new__(cls)
        flags = os.O_RDWR if to_write else os.O_RDONLY
        opened._take(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))  # a pipe is not waited for
        opened.writable = to_write
        return opened

    @property
    def size(self) -> int:
        """How many bytes are set aside."""
        return self._end

    def sync(self) -> None:
        """Return when what was written outlives the machine's power; raises OSError."""
        os.fdatasync(self._fileno())

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return not self._finalizer.alive

    def allocate(self, length: int) -> SpoolRegion:
        """Set `length` bytes aside and return the region that they are."""
        with self._lock:
            offset, self._end = self._end, self._end + length
        return SpoolRegion(self, offset, length)

    def reserve(self, end: int) -> None:
        """Set aside all bytes up to `end`."""
        with self._lock:
            self._end = max(self._end, end)

    def close(self) -> None:
        """Close the file; regions of it cannot be read any more."""
        self._finalizer()

    def _write(self, offset: int, data: codec.Buffer) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            written = os.pwrite(self._fileno(), view, offset)
            view, offset = view[written:], offset + written

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            part = os.pread(self._fileno(), length, offset)
            if not part:
                raise EOFError(f"spool file ends at byte {offset}, {length} more bytes were asked for")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_into(self, offset: int, buffer: memoryview) -> None:
        while len(buffer):
            count = os.preadv(self._fileno(), [buffer], offset)
            if count == 0:
                raise EOFError(f"spool file ends at byte {offset}, {len(buffer)} more bytes were asked for")
            buffer, offset = buffer[count:], offset + count

    def _fileno(self) -> int:
        if self.closed:
            raise ValueError("the spool file is closed")
        return self._fd


def _unnamed_file(directory: pathlib.Path) -> int:
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # not every file system has it
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, path = tempfile.mkstemp(dir=directory)
    pathlib.Path(path).unlink()
    return fd


class SpoolRegion:
    """A run of bytes in a SpoolFile, such as one serialised array. Keeps the file open."""

    __slots__ = ("_file", "_length", "_offset")

    def __init__(self, file: SpoolFile, offset: int, length: int) -> None:
        """Use SpoolFile.allocate."""
        self._file, self._offset, self._length = file, offset, length

    def __len__(self) -> int:
        """Return how many bytes the region has."""
        return self._length

    @property
    def offset(self) -> int:
        """Where in its file the region begins."""
        return self._offset

    def write(self, position: int, data: codec.Buffer) -> None:
        """Write `data` at `position`; raises ValueError if it does not fit, OSError if the disk is full."""
        self._check(position, len(data))
        self._file._write(self._offset + position, data)

    def begin_sync(self) -> None:
        """Have the bytes be on their way to the disk, so that who syncs the file waits less long."""
        durable.begin(self._file._fileno(), self._offset, self._length)

    def read(self, position: int, length: int) -> bytes:
        """Return `length` bytes from `position` on."""
        self._check(position, length)
        return self._file._read(self._offset + position, length)

    def read_into(self, position: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `position` on."""
        self._check(position, len(buffer))
        self._file._read_into(self._offset + position, buffer)

    def _check(self, position: int, length: int) -> None:
        if position < 0 or position + length > self._length:
            raise ValueError(f"bytes {position} to {position + length} of a region of {self._length} bytes")


class SpooledArray(Array):
    """A Flower Array whose serialised bytes lie in a SpoolRegion.

    `data` reads them anew each time and keeps nothing; setting it makes this an ordinary array.
    `numpy()` reads straight into the new ndarray, so that one array is all the memory it takes. Copies
    share the file; a pickled one carries its bytes and comes back as an ordinary Array.
    """

    def __init__(
        self, dtype: str, shape: tuple[int, ...], stype: str, region: SpoolRegion, digest: bytes
    ) -> None:
        """Describe the array that lies in `region`; `digest` names the region's bytes on the wire."""
        self.dtype, self.shape, self.stype = dtype, shape, stype
        self.__dict__["_spool"] = (region, digest)

    @property
    def region(self) -> SpoolRegion | None:
        """Where the bytes lie, or None once `data` has been set."""
        spool = self.__dict__.get("_spool")
        return None if spool is None else cast(SpoolRegion, spool[0])

    @property
    def spooled_digest(self) -> bytes | None:
        """The wire's digest of the bytes, or None once `data` has been set."""
        spool = self.__dict__.get("_spool")
        return None if spool is None else cast(bytes, spool[1])

    @property
    def data(self) -> bytes:
        """The serialised bytes, read from the file each time."""
        region = self.region
        return cast(bytes, self.__dict__["_data"]) if region is None else region.read(0, len(region))

    @data.setter
    def data(self, value: bytes) -> None:
        self.__dict__["_data"] = value
        self.__dict__.pop("_spool", None)

    def numpy(self) -> npt.NDArray[Any]:
        """Return a new ndarray with the array's values; raises what Array.numpy raises."""
        region = self.region
        if region is not None and self.stype == NUMPY_SERIALIZATION:
            array = _read_ndarray(region)
            if array is not None:
                return array
        return super().numpy()

    def __eq__(self, other: object) -> bool:
        """Compare as arrays are compared, whether or not the other one is spooled."""
        if not isinstance(other, Array):
            return NotImplemented
        mine, theirs = (self.dtype, self.shape, self.stype), (other.dtype, other.shape, other.stype)
        if mine != theirs:
            return False
        if isinstance(other, SpooledArray) and self.spooled_digest and other.spooled_digest:
            return self.spooled_digest == other.spooled_digest
        return self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # as for every Array

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        """Pickle as an ordinary Array: the file does not outlive the process."""
        return (Array, (self.dtype, self.shape, self.stype, self.data))

    def __copy__(self) -> SpooledArray:
        """Return an array that shares the file."""
        copied = SpooledArray.__new__(SpooledArray)
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> SpooledArray:
        """Return an array that shares the file: nobody can change what lies there."""
        return self.__copy__()


def move_to_file(array: Array, file: SpoolFile, digest: bytes) -> None:
    """Move an array's bytes into `file`: the same object is a SpooledArray from now on, with the same value.

    digest: the wire's digest of `array.data`. Of a SpooledArray, or an array of another class, nothing
        changes.
    Raises: OSError if they cannot be written; then nothing has changed either.
    """
    if type(array) is not Array:
        return
    region = file.allocate(len(array.data))
    region.write(0, array.data)
    array.__dict__["_spool"] = (region, digest)
    array.__class__ = SpooledArray
    for kept in ("data", KEPT_DIGEST):  # both hold the bytes
        array.__dict__.pop(kept, None)


# Flower writes the class's name into object ids and serialised forms, and there this is an Array.
SpooledArray.__qualname__ = Array.__qualname__


def bytes_of(array: Array) -> codec.Buffer | codec.ByteSource:
    """Return the array's serialised bytes as they are now, without reading them from a file."""
    if isinstance(array, SpooledArray) and (region := array.region) is not None:
        return region
    return array.data


@dataclasses.dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a .npy file says of itself; its values begin at `start`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    start: int


def describe_npy(prefix: bytes) -> NpyHeader | None:
    """Read the header of a .npy file, or return None where it is not one of the usual kind and length."""
    return _described(npy_header(prefix))


def npy_header(prefix: bytes) -> bytes:
    """Return the header of a .npy file that begins with `prefix`, as far as its end can be told."""
    width = {b"\x01": 2, b"\x02": 4}.get(prefix[6:7], 0)
    return prefix[: 8 + width + int.from_bytes(prefix[8 : 8 + width], "little")] if width else prefix[:128]


@functools.lru_cache(maxsize=1024)
def _described(header: bytes) -> NpyHeader | None:
    # The same few headers come with every reply, and numpy parses them as Python source.
    prefix = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(prefix)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(prefix)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(prefix)
        else:
            return None
    except ValueError:
        return None
    return NpyHeader(dtype, shape, fortran_order, prefix.tell())


def _read_ndarray(region: SpoolRegion) -> npt.NDArray[Any] | None:
    """Read a .npy file into a new ndarray, or return None where numpy's own reader has to judge it."""
    header = describe_npy(region.read(0, min(HEADER_READ_BYTES, len(region))))
    if header is None or header.dtype.hasobject or header.dtype.itemsize == 0:
        return None
    count = math.prod(header.shape)
    if count < 0 or header.start + count * header.dtype.itemsize > len(region):
        return None
    flat: npt.NDArray[Any] = np.empty(count, dtype=header.dtype)
    if count:
        region.read_into(header.start, flat.view(np.uint8).data)
    return flat.reshape(header.shape[::-1]).T if header.fortran_order else flat.reshape(header.shape)

"""What a process asks of its disk, written down call by call: writes, names, and what is made durable.

Why it exists: a loss of power shows what was not synced, and SIGKILL does not. From the list a test makes
the disks that may be left (`power`). Python's own calls are seen in `os`; SQLite's at the layer that it has
for this, its VFS, of the very library that Python uses. Meant for a process of its own: both are changed for
all of it. What is not seen is found by comparing the list's end with the directory (`power.whole`).
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fakes import power

_SQLITE_OPEN_CREATE = 0x4
_INDEX_OF_WAL = "-shm"
"""SQLite writes it by a mapping and makes it anew after a crash, whatever is in it."""

_Pointer = ctypes.c_void_p


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        ("szOsFile", ctypes.c_int),
        ("mxPathname", ctypes.c_int),
        *((name, _Pointer) for name in ("pNext", "zName", "pAppData", "xOpen", "xDelete", "xAccess")),
        *((name, _Pointer) for name in ("xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose")),
        *((name, _Pointer) for name in ("xRandomness", "xSleep", "xCurrentTime", "xGetLastError")),
        *((name, _Pointer) for name in ("xCurrentTimeInt64", "xSetSystemCall", "xGetSystemCall")),
        ("xNextSystemCall", _Pointer),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("iVersion", ctypes.c_int),
        *((name, _Pointer) for name in ("xClose", "xRead", "xWrite", "xTruncate", "xSync", "xFileSize")),
        *((name, _Pointer) for name in ("xLock", "xUnlock", "xCheckReservedLock", "xFileControl")),
        *((name, _Pointer) for name in ("xSectorSize", "xDeviceCharacteristics", "xShmMap", "xShmLock")),
        *((name, _Pointer) for name in ("xShmBarrier", "xShmUnmap", "xFetch", "xUnfetch")),
    )


_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, _Pointer)
# SQLite keeps the place of the name that it hands over, so that very place is passed on.
_DELETE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int)
_OPEN_DIRECTORY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
_SET_CALL = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, _Pointer)
_GET_CALL = ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_char_p)


def library() -> ctypes.CDLL | None:
    """The library of SQLite that this Python uses; None where it is built in and cannot be reached."""
    found = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    return found if hasattr(found, "sqlite3_vfs_find") else None


class Recorder:
    """The list of one process, of what is below one directory."""

    def __init__(self, root: Path) -> None:
        """Nothing is seen before `installed`."""
        self.trace: list[power.Step] = []
        self._root = root.resolve()
        self._lock = threading.Lock()
        self._kept: list[object] = []  # what C calls must outlive the call that handed it over

    def mark(self, said: Any) -> None:
        """What somebody was told at this moment."""
        self._add(power.Told(said))

    def wrote(self, descriptor: int, offset: int, data: bytes) -> None:
        """These bytes were written into an open file."""
        if (name := self._name(_path(descriptor))) is not None:
            self._add(power.Wrote(name, offset, data))

    def _add(self, step: power.Step) -> None:
        with self._lock:
            self.trace.append(step)

    def _name(self, path: str | os.PathLike[str]) -> str | None:
        """The path below the root; None for what is elsewhere, has no name, or is of no interest."""
        text = str(Path(path).absolute())
        if text.endswith((_INDEX_OF_WAL, " (deleted)")):
            return None
        if text == str(self._root):
            return ""
        return text.removeprefix(f"{self._root}/") if text.startswith(f"{self._root}/") else None

    @contextlib.contextmanager
    def _synced(self, path: str) -> Iterator[None]:
        """What had been done when a sync began is durable when it has ended."""
        until = len(self.trace)
        yield
        if (name := self._name(path)) is not None:
            self._add(power.Synced(name, until))

    # -- Python ------------------------------------------------------------------------------------

    def watch_python(self) -> None:
        """See what is done by `os`, of which pathlib, shutil and the like are made."""
        opened, written, made, removed, replaced = os.open, os.pwrite, os.mkdir, os.unlink, os.replace
        filed = os.fdopen

        def open_(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            before = flags & (os.O_CREAT | os.O_TRUNC) and Path(path).exists()
            descriptor = opened(path, flags, *arguments, **named)
            if (name := self._name(path)) is not None:
                if flags & os.O_CREAT and not before:
                    self._add(power.Named(name))
                elif flags & os.O_TRUNC:
                    self._add(power.Cut(name, 0))
            return descriptor

        def fdopen(descriptor: int, *arguments: Any, **named: Any) -> Any:
            file = filed(descriptor, *arguments, **named)
            return _Seen(file, self) if self._name(_path(descriptor)) is not None else file

        def replace(path: Any, to: Any) -> None:
            replaced(path, to)
            if (name := self._name(path)) is not None:
                self._add(power.Renamed(name, str(self._name(to))))

        def pwrite(descriptor: int, data: Any, offset: int) -> int:
            count = written(descriptor, data, offset)
            self.wrote(descriptor, offset, bytes(memoryview(data)[:count]))
            return count

        def mkdir(path: Any, *arguments: Any, **named: Any) -> None:
            made(path, *arguments, **named)
            if (name := self._name(path)) is not None:
                self._add(power.Named(name, directory=True))

        def unlink(path: Any, **named: Any) -> None:
            removed(path, **named)
            if (name := self._name(path)) is not None:
                self._add(power.Unnamed(name))

        def syncing(call: Callable[[int], None]) -> Callable[[int], None]:
            def sync(descriptor: int) -> None:
                with self._synced(_path(descriptor)):
                    call(descriptor)

            return sync

        os.open, os.pwrite, os.mkdir, os.unlink, os.replace = open_, pwrite, mkdir, unlink, replace
        os.fdopen = fdopen
        os.fsync, os.fdatasync = syncing(os.fsync), syncing(os.fdatasync)

    # -- SQLite ------------------------------------------------------------------------------------

    def watch_sqlite(self) -> None:
        """See what SQLite does, from the next connection on. There must be a `library`."""
        found = library()
        assert found is not None
        find = found.sqlite3_vfs_find
        find.restype, find.argtypes = ctypes.POINTER(_Vfs), [ctypes.c_char_p]
        register = found.sqlite3_vfs_register
        register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
        below = find(None).contents
        ours = _Vfs.from_buffer_copy(below)
        name = ctypes.create_string_buffer(b"recorded")
        ours.zName = ctypes.addressof(name)
        self._kept += [ours, name, below]
        paths: dict[int, str] = {}
        methods: dict[int, _Methods] = {}
        directories: list[str] = []

        open_below, delete_below = _OPEN(below.xOpen), _DELETE(below.xDelete)

        def open_(vfs: int, at: int | None, file: int, flags: int, out: int) -> int:
            path = b"" if at is None else ctypes.string_at(at)
            there = Path(os.fsdecode(path)).exists()
            result = open_below(vfs, at, file, flags, out)
            if result or not path or (short := self._name(os.fsdecode(path))) is None:
                return result
            paths[file] = short
            if flags & _SQLITE_OPEN_CREATE and not there:
                self._add(power.Named(short))
            found = _Pointer.from_address(file)
            assert found.value is not None
            if found.value not in methods:
                methods[found.value] = self._methods(_Methods.from_address(found.value), paths, directories)
            found.value = ctypes.addressof(methods[found.value])
            return result

        def delete(vfs: int, path: bytes, also_directory: int) -> int:
            directories.clear()
            result = delete_below(vfs, path, also_directory)
            if result == 0 and (short := self._name(os.fsdecode(path))) is not None:
                self._add(power.Unnamed(short))
            self._add_directories(directories)
            return result

        self._set(ours, "xOpen", _OPEN(open_))
        self._set(ours, "xDelete", _DELETE(delete))
        self._watch_directories(below, directories)
        assert register(ctypes.byref(ours), 1) == 0

    def _methods(self, below: _Methods, paths: dict[int, str], directories: list[str]) -> _Methods:
        """The same methods of a file, seen."""
        ours = _Methods.from_buffer_copy(below)
        write_below, cut_below = _WRITE(below.xWrite), _TRUNCATE(below.xTruncate)
        sync_below = _SYNC(below.xSync)

        def write(file: int, data: int, count: int, offset: int) -> int:
            result = write_below(file, data, count, offset)
            if result == 0:
                self._add(power.Wrote(paths[file], offset, ctypes.string_at(data, count)))
            return result

        def truncate(file: int, size: int) -> int:
            result = cut_below(file, size)
            if result == 0:
                self._add(power.Cut(paths[file], size))
            return result

        def sync(file: int, flags: int) -> int:
            directories.clear()
            until = len(self.trace)
            result = sync_below(file, flags)
            if result == 0:
                self._add(power.Synced(paths[file], until))
            self._add_directories(directories)
            return result

        self._set(ours, "xWrite", _WRITE(write))
        self._set(ours, "xTruncate", _TRUNCATE(truncate))
        self._set(ours, "xSync", _SYNC(sync))
        return ours

    def _watch_directories(self, below: _Vfs, directories: list[str]) -> None:
        """SQLite opens a directory only to sync it, beside a file that it has synced or deleted."""
        get, set_ = _GET_CALL(below.xGetSystemCall), _SET_CALL(below.xSetSystemCall)
        at = ctypes.addressof(below)
        opened = _OPEN_DIRECTORY(get(at, b"openDirectory"))

        def open_directory(path: bytes, descriptor: Any) -> int:
            directories.append(str(Path(os.fsdecode(path)).parent))
            return opened(path, descriptor)

        seen = _OPEN_DIRECTORY(open_directory)
        self._kept.append(seen)
        assert set_(at, b"openDirectory", ctypes.cast(seen, _Pointer)) == 0

    def _add_directories(self, directories: list[str]) -> None:
        for path in directories:
            if (short := self._name(path)) is not None:
                self._add(power.Synced(short, len(self.trace)))

    def _set(self, table: ctypes.Structure, name: str, function: Any) -> None:
        self._kept += [table, function]
        setattr(table, name, ctypes.cast(function, _Pointer).value)


class _Seen:
    """An unbuffered file that is written from its beginning to its end."""

    def __init__(self, file: Any, recorder: Recorder) -> None:
        self._file, self._recorder = file, recorder

    def __enter__(self) -> _Seen:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, data: Any) -> int:
        offset = self._file.tell()
        count = int(self._file.write(data))
        self._recorder.wrote(self.fileno(), offset, bytes(memoryview(data)[:count]))
        return count


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())

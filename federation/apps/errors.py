"""What can be wrong with a Flower app before anything runs, as types.

One hierarchy for the whole package, so that a command or a controller catches `AppError`
and shows its text. Each text is one sentence that names the file, key or module at fault;
it knows nothing of trainings, edges or status conditions.
"""


class AppError(Exception):
    """An app that cannot be used as it is; the text says what to change."""


class NoAppDirectory(AppError):
    """The path is not a directory that can be read."""


class NoProject(AppError):
    """The directory has no `pyproject.toml`."""


class InvalidProject(AppError):
    """`pyproject.toml` is not TOML, or its Flower tables have another shape than Flower's."""


class NoComponents(AppError):
    """`pyproject.toml` names neither a ServerApp nor a ClientApp."""


class NoSuchComponent(AppError):
    """The component that was asked for is not named in `pyproject.toml`."""


class UnknownKey(AppError):
    """An override of the run config names a key that the app does not have."""


class MismatchedType(AppError):
    """An override of the run config has another kind of value than the app's default."""


class InvalidBundle(AppError):
    """An archive that is damaged, unsafe to unpack, or not a Flower app."""


class BundleTooLarge(AppError):
    """The app's files exceed the limit of a bundle."""

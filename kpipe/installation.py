"""Report packages that this installation lacks.

kpipe and kpipe-lite install the same files but require different packages:

kpipe       all packages                  all commands and public names
kpipe-lite  LiteRT, NumPy and Pillow      `kpipe predict`, `kpipe benchmark`, and the names of
                                          `kpipe.lite` that run a file

Whatever needs a package that is not installed raises an InstallationError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import lazy_loader

from kpipe.errors import InstallationError

__all__ = [
    "attach_stub",
    "missing_package",
    "refuse_mixed_versions",
    "translate_missing_packages",
]

_Attached = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach_stub(package: str, file: str) -> _Attached:
    """Return a package's `__getattr__`, `__dir__` and `__all__`, as `lazy_loader.attach_stub` does.

    `__getattr__` raises an InstallationError for a name whose packages are not installed.

    Args:
        package: the package's `__name__`.
        file: the package's `__file__`, beside its `__init__.pyi`.
    """
    get, list_names, names = lazy_loader.attach_stub(package, file)

    def get_translated(name: str) -> Any:
        with translate_missing_packages(f"{package}.{name}"):
            return get(name)

    return get_translated, list_names, names


@contextlib.contextmanager
def translate_missing_packages(what: str) -> Iterator[None]:
    """Raise an InstallationError if kpipe imports a package in the block that is not installed.

    Errors of other code, such as a pipeline file or a package of a user's stage, pass through.

    Args:
        what: what needs the package, for the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not _is_raised_by_kpipe(error):
            raise
        raise missing_package(what, str(error.name)) from error


def missing_package(what: str, package: str) -> InstallationError:
    """Return the error about a package that is not installed.

    Args:
        what: what needs the package.
        package: name of the package.
    """
    lite = "kpipe-lite" in _versions()
    return InstallationError(
        f"{what} needs the package {package}, which is not installed",
        expected="a full installation" + (", not kpipe-lite, which only runs models" * lite),
        fix="pip uninstall kpipe-lite && pip install kpipe" if lite else "pip install kpipe",
    )


def refuse_mixed_versions() -> None:
    """Refuse kpipe and kpipe-lite of different versions, which overwrite each other's files.

    Raises:
        InstallationError: both are installed, with different versions.
    """
    versions = _versions()
    if len(set(versions.values())) > 1:
        raise InstallationError(
            "kpipe and kpipe-lite are installed over each other",
            expected="one of them, or the same version of both",
            received=", ".join(f"{name} {version}" for name, version in versions.items()),
            fix="pip uninstall kpipe kpipe-lite, then install one of them",
        )


def _is_raised_by_kpipe(error: ModuleNotFoundError) -> bool:
    import traceback  # slow to import

    frames = traceback.walk_tb(error.__traceback__)
    names = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    importers = [name for name in names if not name.startswith("importlib")]
    return importers[-1].startswith("kpipe.")


def _versions() -> dict[str, str]:
    import importlib.metadata  # slow to import

    versions = {}
    for name in ("kpipe", "kpipe-lite"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions

"""`wowevent version`: what is installed."""

from __future__ import annotations


def version() -> None:
    """Print the versions of WowEvent, Python and SQLite."""
    import platform
    from importlib.metadata import version as installed

    import apsw

    print(f"wowevent {installed('wowevent')}, Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}")

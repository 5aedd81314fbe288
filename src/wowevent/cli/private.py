"""Files that only their owner reads, replaced as a whole: whoever reads one sees it before or after, never half."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace the file, mode 0600; its folder is made, mode 0700, if it is not there. OSError if that fails.

    What a symbolic link points to is replaced, not the link.
    """
    path = path.resolve()
    make_private_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def make_private_folder(path: Path) -> None:
    """Make it, mode 0700; one that is there stays as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)

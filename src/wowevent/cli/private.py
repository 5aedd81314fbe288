"""Files that only their owner reads, replaced as a whole: whoever reads one sees it before or after, never half."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import Final

_OF_ITS_GROUP: Final = 0o040


def write_private(path: Path, content: bytes) -> None:
    """Replace the file, mode 0600; its folder is made, mode 0700, if it is not there. OSError if that fails.

    What a symbolic link points to is replaced, not the link. Whose file it is stays, and whether their group may read
    it: a service of another user than ours goes on reading what it read.
    """
    path = path.resolve()
    make_private_folder(path.parent)
    number, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # nobody can have put anything there before
    draft = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            _keep_owner(number, path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def _keep_owner(draft: int, path: Path) -> None:
    """Let the draft be whose the file is; PermissionError if we may not."""
    own = os.fstat(draft)
    before = path.stat() if path.exists() else own
    if (before.st_uid, before.st_gid) != (own.st_uid, own.st_gid):
        os.fchown(draft, before.st_uid, before.st_gid)
    os.fchmod(draft, 0o600 | (before.st_mode & _OF_ITS_GROUP))


def make_private_folder(path: Path) -> None:
    """Make it, mode 0700; one that is there stays as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)

"""Files that are complete on disk, or do not exist."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"  # end of the name of a file that is being written


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is complete on disk, or does not exist.

    Parameters
    ----------
    path : Path
        File to write or to replace.
    write : callable
        Called with an open temporary file in the same folder.

    Raises
    ------
    OSError
        If the file cannot be written; the error names it. A file that was there before is kept.
    """
    partial = path.with_name(f"{path.name}{secrets.token_hex(4)}{PARTIAL}")
    try:
        with open(partial, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # the class of the new error follows from the number
            reason = f"{error.strerror}, so nothing was written"
            raise OSError(error.errno, reason, str(path)) from error
        raise
    if os.name == "posix":  # write the new file name to disk too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

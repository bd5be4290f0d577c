"""Results of a benchmark, in a file with a line for each, so that it can be interrupted.

Every benchmark whose table takes many fits has such a file: the same command then measures what is
missing.
"""

import json
import os
import sys


class Cells(dict):
    """Results by key, read from a file; a line that was cut off counts as missing.

    Parameters
    ----------
    path : Path
        File with one result, a dict, per line; need not exist.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    cell = json.loads(line)
                    self[cell.pop("key")] = cell
                except (json.JSONDecodeError, KeyError):
                    continue

    def measured(self, key, measure, *arguments):
        """Result of a key; if it is missing, `measure(*arguments)`, which the file then has too."""
        if key not in self:
            self[key] = measure(*arguments)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": key} | self[key]))
                file.flush()
                os.fsync(file.fileno())
            print(key, self[key], file=sys.stderr, flush=True)
        return self[key]

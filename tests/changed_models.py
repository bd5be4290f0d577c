"""Files of models that were changed on purpose, with checksums that fit."""

import io
import json
import zipfile

from sklearn_stndt.persistence.archive import MANIFEST, write_parts


def parts_of(path):
    """Read all parts of a file, without the manifest, and the manifest."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return parts, json.loads(parts.pop(MANIFEST))


def rewrite(path, parts, manifest):
    """Write parts into a file, with the checksums that they need."""

    def fill(writer):
        for name, content in parts.items():
            writer.add(name, content)
        return {k: v for k, v in manifest.items() if k not in ("what", "format", "parts")}

    buffer = io.BytesIO()
    write_parts(buffer, fill)
    path.write_bytes(buffer.getvalue())


def change_model(path, change):
    """Change `model.json` of a file by a function that is given its content."""
    parts, manifest = parts_of(path)
    model = json.loads(parts["model.json"])
    change(model)
    parts["model.json"] = json.dumps(model).encode()
    rewrite(path, parts, manifest)

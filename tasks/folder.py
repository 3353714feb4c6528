"""Where a data set's folder lies, and what its files are: by name or path to a folder, and a hash of its bytes.

Guarantees: the hash knows every byte that a task can depend on, and no path of this machine. It reads no table and
loads no pandas, so that planning a thousand trials need not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def resolve_folder(name: str, path: str | None) -> Path:
    """Return the folder of a data set: ``path`` where given, else the Hub data set ``name``, downloaded by relbench.

    Raises ValueError where the folder is missing or the download fails.
    """
    if path is not None:
        try:
            folder = Path(path).expanduser()
        except RuntimeError as error:  # "~nobody"
            raise ValueError(f"dataset.path={path!r}: {error}") from None
        if not folder.is_dir():
            raise ValueError(f"dataset.path={path!r}: there is no such folder")
        return folder
    from relbench.hf import download_dataset_dir

    try:
        return Path(download_dataset_dir(name))
    except Exception as error:  # the Hub client raises many unrelated types
        raise ValueError(
            f"dataset={name!r} could not be fetched from the Hub ({type(error).__name__}); "
            "give a local RelBench v3 folder with dataset.path=FOLDER"
        ) from error


def data_fingerprint(folder: Path, task: str) -> str:
    """Return a hash of the manifests and Parquet bytes of the database and of one task, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    paths = [folder / "manifest.yaml", *sorted((folder / "db").glob("*.parquet"))]
    paths += sorted(path for path in (folder / "tasks" / task).iterdir() if path.suffix in {".yaml", ".parquet"})
    for path in paths:
        digest.update(repr((path.relative_to(folder).as_posix(), path.stat().st_size)).encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()

"""What git knows of this checkout, and another commit of it in a folder of its own for as long as it is raced.

Guarantees: the working tree, the index and the branches are never touched; a commit is said to be some code's only
where nothing that runs differs from it; the folder lies in the user's cache and is removed at the end, one that a kill
left behind by the next check. Without git, or outside a repository, everything is None with a reason. No torch.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.config import code_version
from harness.dataset import user_cache

ROOT: Final = Path(__file__).resolve().parent.parent
#: What a trial's measurements depend on.
_CODE: Final = ("tasks", "backends", "harness", "configs", "constraints.txt")


class GitError(RuntimeError):
    """Git is not here, this is no repository, or it refused; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The commit that some code is, or None and why it cannot be told."""

    commit: str | None
    reason: str = ""


def origin_of(version: str, root: Path = ROOT) -> Origin:
    """Return the commit of the code with a ``code_version``: this checkout's, where nothing in it was changed since."""
    if version != code_version():
        return Origin(commit=None, reason="the records were made by other code than this checkout's")
    try:
        if _git(root, "status", "--porcelain", "--", *_CODE):
            return Origin(commit=None, reason="this checkout has changes that are not committed")
        return Origin(commit=_git(root, "rev-parse", "HEAD"))
    except GitError as error:
        return Origin(commit=None, reason=str(error))


def find_commit(revision: str, root: Path = ROOT) -> str:
    """Return the hash of a revision's commit; GitError where there is none in this clone."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except GitError as error:
        shown = revision[:12] if len(revision) >= 40 else revision
        said = str(error) or "a shallow clone lacks old ones"
        raise GitError(f"commit {shown} is not in this repository: {said}") from None


def commit_info(root: Path = ROOT) -> dict[str, Any]:
    """Return id, time, branch and whether there are changes; nothing where git knows nothing."""
    try:
        return {
            "id": _git(root, "rev-parse", "HEAD"),
            "time": _git(root, "show", "-s", "--format=%cI", "HEAD"),
            "branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD"),
            "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        }
    except GitError:
        return {}


def lock_hash(root: Path = ROOT) -> str | None:
    """Return a hash of the constraints file, which pins every version; None where there is none."""
    path = root / "constraints.txt"
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else None


@contextmanager
def worktree(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """Give a folder with a commit in it, always the same one, and remove it; GitError where that cannot be."""
    name = hashlib.blake2b(f"{root}\n{commit}".encode(), digest_size=8).hexdigest()
    folder = user_cache() / "worktrees" / f"{commit[:12]}-{name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GitError(f"another check races commit {commit[:12]} now; wait for its end") from None
        _remove(folder, root)
        _git(root, "worktree", "add", "--force", "--detach", "--quiet", str(folder), commit)
        try:
            yield folder
        finally:
            _remove(folder, root)


def _remove(folder: Path, root: Path) -> None:
    if not folder.exists():
        return
    try:
        _git(root, "worktree", "remove", "--force", "--force", str(folder))
    except GitError:  # a clone that is gone left it, or a kill came while it was made: git does not know it
        shutil.rmtree(folder)


@functools.cache
def _is_repository(root: Path) -> bool:
    """Tell whether the checkout is a repository's top, and not a folder inside another project's."""
    try:
        return Path(_run(root, "rev-parse", "--show-toplevel")).resolve() == root.resolve()
    except GitError:
        return False


def _git(root: Path, *arguments: str) -> str:
    if not _is_repository(root):
        raise GitError("git is missing, or this is no git repository")
    return _run(root, *arguments)


def _run(root: Path, *arguments: str) -> str:
    """Run git without hooks, and without what a hook that called us may have set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise GitError("git is missing") from None
    if done.returncode:
        raise GitError(" ".join(done.stderr.split()))
    return done.stdout.strip()

"""Small models on a model hub: a repository by its id, as transformers names it, and uploads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bpc.hub.note import NoteError
from bpc.hub.standalone import NAME as FILE

_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # nothing that would have to be unpickled or run


def local_directory(path: str | Path, revision: str | None = None, *, code: bool = False) -> Path:
    """The directory of a small model: ``path`` itself, or a copy in the hub's cache of the repository of that id.

    ``revision``: a branch, tag or commit of the repository. ``code``: fetch its Python files as well. Without network
    the cache answers, as for transformers. Raises `NoteError` where there is neither.
    """
    if os.path.exists(path) or not _is_id(str(path)):
        if revision is not None:
            raise NoteError(f"revision={revision!r} is one of a hub repository ('owner/name'); {path} is a directory")
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        patterns = [*_PATTERNS, "*.py"] if code else list(_PATTERNS)
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        wanted = f"{path} at revision {revision}" if revision is not None else str(path)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NoteError(f"{wanted} is no directory here, and as a hub repository it cannot be had: {reason}") from error


def upload(directory: Path, repo_id: str, *, private: bool | None = None, token: str | None = None) -> Any:
    """Make the repository if it is new, and replace its model by that of a directory, in one commit.

    What else lies in the directory stays here, but for a tokenizer, a processor, the card and the file of
    `bpc.hub.standalone`.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    return api.upload_folder(
        repo_id=url.repo_id,
        folder_path=directory,
        allow_patterns=[*_PATTERNS, "README.md", FILE],
        ignore_patterns=["*/*"],  # a training's checkpoints
        commit_message="Upload a model shrunk by bpc",
        delete_patterns=["*.safetensors", "*.safetensors.index.json"],  # of another size, in other shards
    )


def _is_id(path: str) -> bool:
    """``owner/name``; a relative path of two parts that does not exist is one too, and the error then says both."""
    owner, slash, name = path.partition("/")
    return bool(slash and owner.strip(".") and name) and "/" not in name and os.sep not in name

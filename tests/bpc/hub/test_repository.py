"""A hub repository is loaded by its id and revision, here from the cache; an upload holds the model and no more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from bpc.dense import DenseModel, load
from bpc.directory import LoadError
from bpc.hub.repository import upload

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@pytest.fixture
def hub(small: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub's cache holds after downloads of two revisions of me/small; other hubs cannot be reached."""
    repository = tmp_path / "models--me--small"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in COMMITS.items():
        (repository / "refs" / revision).write_text(commit)
        small.save_pretrained(repository / "snapshots" / commit)
    (repository / "snapshots" / COMMITS["v1"] / "certificate.json").unlink()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_repository_loads_by_its_id(hub: Path, small: DenseModel) -> None:
    loaded = load("me/small")
    assert loaded.certificate is not None
    torch.testing.assert_close(loaded(IDS).logits, small(IDS).logits, rtol=0, atol=0)


def test_a_revision_is_another_directory(hub: Path) -> None:
    assert load("me/small", revision="v1").certificate is None


@pytest.mark.parametrize(
    ("path", "revision", "problem"),
    [
        ("me/other", None, "me/other is no directory here, and as a hub repository it cannot be had"),
        ("me/small", "v2", "me/small at revision v2 is no directory here"),
        ("./me", None, "is no saved dense model"),
        ("small", None, "is no saved dense model"),
    ],
)
def test_what_cannot_be_had_is_said(hub: Path, path: str, revision: str | None, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        load(path, revision=revision)


def test_a_directory_has_no_revisions(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is a directory"):
        load(tmp_path, revision="main")


class Recorded:
    """Stands in for the hub: keeps what would have been uploaded."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, "token": self.token, **options}))
        return SimpleNamespace(repo_id=f"me/{repo_id.rpartition('/')[2]}")

    def upload_folder(self, folder_path: Path, **options: Any) -> None:
        chosen = huggingface_hub.utils.filter_repo_objects(
            [f.relative_to(folder_path).as_posix() for f in sorted(folder_path.rglob("*")) if f.is_file()],
            allow_patterns=options.pop("allow_patterns"),
            ignore_patterns=options.pop("ignore_patterns"),
        )
        self.calls.append(("upload_folder", {**options, "files": list(chosen)}))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    monkeypatch.setattr(Recorded, "calls", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", Recorded)
    return Recorded.calls


def test_a_model_is_pushed_as_it_is_saved(small: DenseModel, calls: list[tuple[str, dict[str, Any]]]) -> None:
    small.push_to_hub("small", private=True, token="secret")
    made, uploaded = calls
    assert made == ("create_repo", {"repo_id": "small", "token": "secret", "private": True, "exist_ok": True})
    assert uploaded[1]["repo_id"] == "me/small"
    assert {"bpc.json", "certificate.json", "config.json", "model.safetensors"} <= set(uploaded[1]["files"])


def test_only_the_model_is_uploaded(tmp_path: Path, calls: list[tuple[str, dict[str, Any]]]) -> None:
    for name in ("config.json", "tokenizer.json", "README.md", "data.csv", "optimizer.pt", "checkpoint-1/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    upload(tmp_path, "me/small")
    assert calls[1][1]["files"] == ["README.md", "config.json", "tokenizer.json"]


def test_a_saved_directory_is_pushed_under_its_name(
    small: DenseModel, tmp_path: Path, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    small.save_pretrained(tmp_path / "tiny", push_to_hub=True)
    assert calls[0][1]["repo_id"] == "tiny"

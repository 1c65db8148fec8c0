"""What a reader finds while bpc writes, after it was killed, and where the place is none for a file."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpc.writing import STAGED, new_file, new_files, write_text


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def content(directory: Path) -> dict[str, str]:
    return {f.relative_to(directory).as_posix(): f.read_text() for f in directory.rglob("*") if f.is_file()}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"

    def interrupted() -> None:
        with new_file(path) as staged:
            staged.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.parent.exists()
    write_text(path, "é")
    with new_file(path) as staged:
        staged.write_text("second")
        assert (path.read_bytes(), staged.name) == ("é".encode(), "a.txt")
    assert content(tmp_path) == {"new/a.txt": "second"}
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").symlink_to("there/a.txt")
    (tmp_path / "folder").symlink_to("there")
    write_text(tmp_path / "file", "one")
    with new_files(tmp_path / "folder") as staged:
        assert staged.parent == tmp_path / "there"  # its file system, whatever lies above
        (staged / "b.txt").write_text("two")
    assert content(tmp_path / "there") == {"a.txt": "one", "b.txt": "two"}
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "folder").is_symlink()


def test_links_among_a_directorys_files_are_replaced(tmp_path: Path) -> None:
    """A cache of downloads links to files that others use."""
    (tmp_path / "blob").write_text("shared")
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").symlink_to(tmp_path / "blob")
    with new_files(target) as staged:
        (staged / "weights").write_text("mine")
    assert (tmp_path / "blob").read_text() == "shared"
    assert not (target / "weights").is_symlink()


def test_the_umask_holds_whatever_the_writer_did(tmp_path: Path, umask: int) -> None:
    with new_files(tmp_path / "out") as staged:
        for name in ("a", "b"):
            os.close(os.open(staged / name, os.O_CREAT | os.O_WRONLY, 0o600))
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) == 0o666 & ~umask
    (tmp_path / "out" / "a").chmod(0o600)
    write_text(tmp_path / "out" / "a", "still private")
    assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) == 0o600


def test_devices_and_pipes_are_written_to_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    command = "from bpc.writing import write_text; write_text('/dev/stdout', 'seen')"  # a link to a pipe without a path
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, check=True).stdout == b"seen"
    write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced_and_nothing_moves(tmp_path: Path, make: type) -> None:
    make(tmp_path / "b")
    (tmp_path / "key").write_text("old")

    def write() -> None:
        with new_files(tmp_path, keystones=("key",)) as staged:
            for name in ("a", "b", "key"):
                (staged / name).write_text("new")

    with pytest.raises(FileExistsError, match="b is not a file"):
        write()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b", "key"]
    assert (tmp_path / "key").read_text() == "old"


def test_a_directory_is_no_file_and_a_file_no_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a directory; give the name of a file"):
        write_text(tmp_path, "")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; give a directory"), new_files(tmp_path / "file"):
        pass


def test_a_kill_at_any_step_leaves_no_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both keystones there, all is old or all is new."""

    class Killed(BaseException):
        pass

    old = dict.fromkeys(("weights", "shard", "plan", "mark"), "old") | {"notes": "mine"}
    new = dict.fromkeys(("weights", "more/text", "plan", "mark"), "new") | {"notes": "mine"}
    steps = 0

    def step(function):  # type: ignore[no-untyped-def]
        def run(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal steps
            steps -= 1
            if steps == 0:
                raise Killed
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(os, "replace", step(os.replace))
    monkeypatch.setattr(Path, "unlink", step(Path.unlink))
    seen = []
    for kill in range(1, 12):
        target = tmp_path / f"{kill}"
        target.mkdir()
        for name, text in old.items():
            (target / name).write_text(text)
        steps = 0
        try:
            with new_files(target, keystones=("plan", "mark"), replaces=("shard*",)) as staged:
                (staged / "more").mkdir()
                for name in new.keys() - {"notes"}:
                    (staged / name).write_text("new")
                steps = kill + 1  # the first one removes the probe of the umask
        except Killed:
            pass
        found = content(target)
        assert found["notes"] == "mine"
        seen.append("old" if found == old else "new" if found == new else "none")
        if {"plan", "mark"} <= found.keys():
            assert seen[-1] != "none", found
    assert seen == ["old"] + ["none"] * 6 + ["new"] * 4


WRITER = """
import sys
from bpc.writing import new_files
with new_files(sys.argv[1]) as staged:
    (staged / "big").write_text("half")
    print(flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_killed_runs_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    killed, living = start(), start()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(tmp_path.glob(f"{STAGED}*"))) == 2
    write_text(tmp_path / "other", "x")
    assert len(list(tmp_path.glob(f"{STAGED}*"))) == 1
    living.communicate(timeout=60)
    deadline = time.time() + 10
    while list(tmp_path.glob(f"{STAGED}*")) and time.time() < deadline:
        time.sleep(0.01)
    assert content(tmp_path) == {"other": "x", "big": "half"}
    assert living.returncode == 0

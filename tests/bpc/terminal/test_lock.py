"""Two runs on one place: the second is refused while the first lives, and not by what a killed one left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bpc.terminal import lock
from bpc.terminal.errors import reports_errors

HOLDER = """
import sys, typer
from pathlib import Path
from bpc.terminal.lock import claim_directory

def hold(context: typer.Context, out: Path) -> None:
    claim_directory(context, "--out", out)
    print("held", flush=True)
    sys.stdin.read()

typer.run(hold)
"""


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @reports_errors
    def write(context: typer.Context, out: Path, fail: bool = False) -> None:
        lock.claim_directory(context, "--out", out)
        assert (out / lock.NAME).exists()
        if fail:
            raise OSError("no")
        (out / "result").touch()

    return app


def test_a_living_run_keeps_others_out_and_a_killed_one_does_not(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = CliRunner().invoke(app, [str(out)])
        assert refused.exit_code == 1
        assert f"--out {out}: another run of bpc is writing there" in refused.output.replace("\n", "")
        assert not (out / "result").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert (out / lock.NAME).exists()  # nobody was left to take it away
    done = CliRunner().invoke(app, [str(out)])
    assert done.exit_code == 0, done.output
    assert [file.name for file in out.iterdir()] == ["result"]


def test_a_failed_run_leaves_no_directory(app: typer.Typer, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, [str(tmp_path / "deep" / "out"), "--fail"]).exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_claimed_beside_it(tmp_path: Path) -> None:
    app = typer.Typer()

    @app.command()
    @reports_errors
    def write(context: typer.Context, out: Path) -> None:
        lock.claim_file(context, "--out", out)
        assert [file.name for file in out.parent.iterdir()] == [".model.onnx.bpc-lock"]
        lock.claim_file(context, "--out", Path("/dev/null"))

    assert CliRunner().invoke(app, [str(tmp_path / "model.onnx")], catch_exceptions=False).exit_code == 0
    assert list(tmp_path.iterdir()) == []

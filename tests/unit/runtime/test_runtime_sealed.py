"""The copy of an OCI runtime in sealed memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from havre.runtime.runtimes import OciRuntime, SealedCopy


def test_a_copy_runs_by_its_name_and_cannot_be_changed(tmp_path: Path) -> None:
    program = tmp_path / "crun"
    shutil.copy("/bin/echo", program)
    sealed = SealedCopy(program, tmp_path / "sealed/crun")
    runtime = OciRuntime("crun", program, tmp_path / "state", sealed=sealed)
    assert subprocess.check_output(runtime.for_create()) == b"--root=%b\n" % os.fsencode(tmp_path / "state")
    assert Path(runtime.for_exec(tty=False)[0]).name == "crun"
    assert sealed.path.read_bytes() == program.read_bytes()
    with pytest.raises(PermissionError):
        sealed.path.write_bytes(b"something else")


def test_a_program_that_was_replaced_is_started_itself(tmp_path: Path) -> None:
    program = tmp_path / "crun"
    shutil.copy("/bin/echo", program)
    sealed = SealedCopy(program, tmp_path / "sealed/crun")
    shutil.copy("/bin/true", tmp_path / "new")
    (tmp_path / "new").rename(program)
    assert sealed.path == program
    assert SealedCopy(program, tmp_path / "sealed/crun").path.read_bytes() == program.read_bytes()

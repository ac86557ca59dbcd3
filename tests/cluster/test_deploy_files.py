"""The files for a GPU host: what they call exists, and systemd takes them."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from xrf_sr_plans.cli.cluster import cluster_app

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
PROGRAM = "/opt/xrf-sr/bin/xrf-sr"


def environment() -> dict[str, str]:
    lines = (ROOT / "deploy" / "systemd" / "cluster.env").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_calls_a_command_with_options_that_it_has(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    known = environment()
    text = re.sub(r"\$\{?(\w+)\}?", lambda name: known[name[1]], line)
    program, group, command, *arguments = shlex.split(text)
    assert (program, group) == (PROGRAM, "cluster")
    commands = typer.main.get_command(cluster_app).commands  # type: ignore[attr-defined]
    context = commands[command].make_context(command, arguments)
    assert str(context.params["keys"]) == "/etc/xrf-sr/keys"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_a_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@", "@0")
    copy.write_text(unit.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    # It also complains of other units of the machine.
    assert unit.stem.rstrip("@") not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_the_image_installs_extras_that_there_are() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text()
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    (copied,) = re.findall(r"^COPY (.*) /tmp/xrf-sr/$", text, re.M)
    assert copied == "constraints.txt dist/*.whl"
    ignored = (ROOT / "deploy" / "Containerfile.dockerignore").read_text().split()
    assert ignored == ["*", "!constraints.txt", "!dist/*.whl"]

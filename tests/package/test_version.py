"""One version: what was installed is what the package, the command and result documents say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

import xrf_sr_plans
from xrf_sr_plans.callbacks.result_run import package_versions

ROOT = Path(__file__).resolve().parents[2]


def newest_release() -> str:
    """The uppermost release of the changelog, which may still lie ahead."""
    found = re.search(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_package_command_and_result_documents_say_the_installed_version() -> None:
    installed = version("xrf-sr-plans")
    assert xrf_sr_plans.__version__ == installed
    assert package_versions()["xrf_sr_plans"] == installed
    command = [sys.executable, "-m", "xrf_sr_plans.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["xrf-sr", installed]


def test_the_citation_names_the_newest_release_of_the_changelog() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == newest_release()


def test_a_tag_makes_the_release_that_citation_and_changelog_name() -> None:
    installed = Version(xrf_sr_plans.__version__)
    if not (installed.is_prerelease or installed.local):
        assert installed == Version(newest_release())


def test_no_second_version_is_written_down() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    fallback = project["tool"]["setuptools_scm"]["fallback_version"]
    assert Version(fallback).base_version == Version(newest_release()).base_version
    assert Version(fallback).is_devrelease

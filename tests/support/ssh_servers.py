"""An sshd of a test's own on a free port of this host, and the command that reaches a worker there.

Nothing of the user's own keys, settings or login scripts is used or changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("elsewhere_worker.py")
_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
SetEnv HOME={folder}/home TMPDIR={folder}/tmp
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""


class Sshd:
    """A server whose users have their home and temporary files in a folder of the test's.

    Parameters
    ----------
    folder
        Where everything of it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        self.port = _free_port()
        for name in ("host_key", "user_key", "other_key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(keygen, check=True, timeout=30)
        host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        self.worker = folder / "xrf-sr-worker"
        path = os.pathsep.join(sys.path)
        self.worker.write_text(
            f"#!/bin/sh\nPYTHONPATH='{path}' exec {sys.executable} -P {WORKER}\n"
        )
        self.worker.chmod(0o755)
        self.allow(f'restrict,command="{self.worker}"')
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def allow(self, options: str) -> None:
        """Let the user's key in, with what its line says before it."""
        key = (self.folder / "user_key.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{options} {key}")

    def start(self) -> None:
        """Serve until `stop`."""
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        log = self.folder / "sshd.log"
        self._process = subprocess.Popen(
            [program, "-D", "-E", str(log), "-f", str(self.folder / "sshd_config")]
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def command(self, *options: str, key: str = "user_key", remote: str = "") -> list[str]:
        """Return the command that starts a worker over this server."""
        given = [
            *("BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "ConnectTimeout=10"),
            *(f"UserKnownHostsFile={self.folder}/known_hosts", "StrictHostKeyChecking=yes"),
        ]
        told = [word for one in given for word in ("-o", one)]
        login = ["-F", "/dev/null", "-p", str(self.port), "-i", str(self.folder / key)]
        return ["ssh", *login, *options, *told, "127.0.0.1", *([remote] if remote else [])]


def needs_sshd() -> None:
    """Skip the test where there is no sshd that it could start."""
    if shutil.which("sshd") is None and not Path("/usr/sbin/sshd").exists():
        pytest.skip("no sshd (apt-get install openssh-server)")
    if shutil.which("ssh") is None:
        pytest.skip("no ssh (apt-get install openssh-client)")
    if os.geteuid() == 0:
        # Where the server leaves its privileges; the package's own service makes it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""A SLURM of one node on this machine, without systemd and cgroups: munged, slurmctld and slurmd in one folder.

with cluster(folder) as slurm:
    slurm.call("sinfo")
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """Why there can be no cluster here, or None."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "the daemons are started as root"


@dataclass
class Slurm:
    """A running cluster."""

    host: str
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """Standard output of a command that finds this cluster."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        """Job or array task -> state, of all that the controller remembers and has not forgotten."""
        lines = self.call("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)  # type: ignore[misc]

    def wait(self, what: str, until: Callable[[dict[str, str]], bool], seconds: float = 240) -> dict[str, str]:
        """The states, as soon as `until` holds of them."""
        deadline = time.monotonic() + seconds
        while not until(found := self.states()):
            assert time.monotonic() < deadline, f"not {what} after {seconds:.0f} s: {found}"
            time.sleep(1)
        return found


@contextlib.contextmanager
def cluster(folder: Path, cpus: int = 2) -> Iterator[Slurm]:
    """A cluster whose daemons end with the block. `folder` should have a short path: sockets lie in it."""
    host = socket.gethostname().split(".")[0]
    for name in ("run", "state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(host=host, folder=folder, ports=_free_ports(2), cpus=cpus))
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    daemons = [
        ["munged", "--force", f"--key-file={key}", f"--socket={folder}/run/munge.socket",
         f"--pid-file={folder}/run/munged.pid", f"--log-file={folder}/munged.log",
         f"--seed-file={folder}/munge.seed"],
        ["slurmctld", "-f", str(conf)],
        ["slurmd", "-f", str(conf), "-N", host],
    ]  # fmt: skip
    try:
        for daemon in daemons:
            subprocess.run(daemon, env=environment, check=True, capture_output=True)
        slurm = Slurm(host, environment)
        deadline = time.monotonic() + 60
        while _output(["sinfo", "--noheader", "--format=%t"], environment) != "idle":
            assert time.monotonic() < deadline, "the node does not get idle"
            time.sleep(0.5)
        yield slurm
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            _end(folder / "run" / f"{name}.pid")


def _end(pid_file: Path) -> None:
    """End a daemon and wait until it has."""
    with contextlib.suppress(OSError, ValueError):  # it never began, or it is over
        process = int(pid_file.read_text())
        os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            os.kill(process, 0)
            time.sleep(0.2)


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]

"""Where Ray's processes listen on this machine, read from /proc: no process and no network is asked."""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # a socket's state in /proc/net/tcp
PROGRAMS = ("gcs_server", "raylet")
SCRIPTS = re.compile(r"/ray/(_private|autoscaler|dashboard|util)/|^ray\.(_private|util)\.")


@dataclass(frozen=True, order=True)
class Listener:
    """A process and one address that it listens on.

    Attributes:
        process: Its name: "raylet", "ray::IDLE", "dashboard.py", ...
        pid: Its process id.
        host: IP address; "0.0.0.0" and "::" are all of the machine's.
        port: TCP port.
    """

    process: str
    pid: int
    host: str
    port: int

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """Process and address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.process} {host}:{self.port}"


def ray_listeners(proc: Path = PROC) -> list[Listener] | None:
    """What Ray's processes of this user listen on; None where the system has no /proc."""
    if not (proc / "net" / "tcp").exists():
        return None
    sockets = dict(_sockets(proc))
    return sorted(
        Listener(name, int(folder.name), *sockets[inode])
        for folder, name in _processes(proc)
        for inode in _inodes(folder)
        if inode in sockets
    )


def _sockets(proc: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Inode and address of every socket of this user that listens."""
    for table in ("tcp", "tcp6"):
        file = proc / "net" / table
        rows = file.read_text().splitlines()[1:] if file.exists() else []  # no tcp6 where IPv6 is off
        for fields in map(str.split, rows):
            if fields[3] == LISTENING and int(fields[7]) == os.geteuid():
                host, port = fields[1].split(":")
                yield fields[9], (_readable(host), int(port, 16))


def _readable(host: str) -> str:
    """An address as people write it, from words of 32 bits in the order of the machine, in hexadecimal."""
    words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _processes(proc: Path) -> Iterator[tuple[Path, str]]:
    """Folder and name of every process of Ray."""
    for folder in proc.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is somebody else's
            continue
        if name := _ray_name(words):
            yield folder, name


def _ray_name(command: list[str]) -> str:
    """How a process of Ray is called; empty for other processes."""
    program = Path(command[0]).name
    if program in PROGRAMS:
        return program
    if command[0].startswith("ray::"):  # workers and agents call themselves so
        return command[0].split()[0]
    script = next((word for word in command[1:] if SCRIPTS.search(word)), "")
    return Path(script).name


def _inodes(folder: Path) -> Iterator[str]:
    """Inodes of the sockets that a process has open."""
    try:
        for link in (folder / "fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is somebody else's
        return

"""Network file systems, on which SQLite must not lie: its locks and shared memory end at a machine.

See https://sqlite.org/wal.html, "all processes using a database must be on the same host".
"""

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

_NETWORK_TYPES = re.compile(
    r"9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|fhgfs|gfs2?|glusterfs|gpfs|kafs|lustre|ncp(fs)?|nfs4?"
    r"|ocfs2|orangefs|panfs|pvfs2|smb[23]|smbfs|wekafs"
)
_NETWORK_FUSE = re.compile(
    r"alluxio|beegfs|blobfuse2?|ceph(fs|-fuse)?|curlftpfs|davfs2?|gcsfuse|glusterfs|goofys"
    r"|gvfsd-fuse|hdfs|juicefs|lizardfs|m(oose)?fs|mount(point)?-s3|nfs|quobyte|rclone|s3fs"
    r"|s3ql|seaweedfs|smbnetfs|sshfs"
)
_REMOTE_SOURCE = re.compile(r"//|[\w.+-]+://|[\w.@-]+:/|[\w.-]+@[\w.-]+:")
"""``//host/share``, ``s3://bucket``, ``host:/path``, ``user@host:path``."""


@dataclass(frozen=True, slots=True)
class _Mount:
    point: Path
    type: str
    source: str


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the network file system that ``path`` lies on or would lie on; None elsewhere.

    ``mounts`` has the form of /proc/self/mountinfo (proc_pid_mountinfo(5)). A system without that
    file is taken for one without network file systems.
    """
    try:
        text = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    mount = _mount_of(path.resolve(), [_parse(line) for line in text.splitlines() if line])
    return mount.type if mount is not None and _is_network(mount) else None


def _parse(line: str) -> _Mount:
    # id, parent, device, root, mount point, options, tags …, "-", type, source, options
    before, _, after = line.partition(" - ")
    type_, source = after.split(" ")[:2]
    return _Mount(Path(_unescape(before.split(" ")[4])), type_.lower(), _unescape(source))


def _unescape(field: str) -> str:
    """Blanks, tabs, newlines and backslashes are written as ``\\040`` and the like."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _mount_of(path: Path, mounts: list[_Mount]) -> _Mount | None:
    """The deepest mount above ``path``; of several on one folder the last, which hides the others.

    A bind mount is a mount of its own there, with the type of what it shows.
    """
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=None)


def _is_network(mount: _Mount) -> bool:
    kind, _, subtype = mount.type.partition(".")
    if kind != "fuse":
        return _NETWORK_TYPES.fullmatch(mount.type) is not None
    known = _NETWORK_FUSE.fullmatch(subtype) is not None
    return known or _REMOTE_SOURCE.match(mount.source) is not None

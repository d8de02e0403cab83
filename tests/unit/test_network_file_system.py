"""SQLite files on network file systems are recognised by the mount they lie on."""

from pathlib import Path

import pytest

from service.local.database_claim import claim_database
from service.local.startup_error import StartupError
from service.store.file_system import network_file_system


def mounts(tmp_path: Path, *lines: str) -> Path:
    """A mountinfo file; each line is ``mount point, type, source``."""
    root = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
    rest = []
    for number, line in enumerate(lines, start=30):
        point, kind, source = line.split(", ")
        rest.append(f"{number} 22 0:{number} / {point} rw,relatime shared:2 - {kind} {source} rw")
    file = tmp_path / "mountinfo"
    file.write_text("\n".join([root, *rest]) + "\n")
    return file


@pytest.mark.parametrize(
    ("kind", "source", "network"),
    [
        ("nfs", "server:/export", True),
        ("nfs4", "server:/export", True),
        ("cifs", "//server/share", True),
        ("smb3", "//server/share", True),
        ("9p", "C:\\134", True),
        ("lustre", "10.0.0.1@tcp:/scratch", True),
        ("gpfs", "gpfs0", True),
        ("ceph", "10.0.0.1:6789:/", True),
        ("glusterfs", "server:/volume", True),
        ("beegfs", "beegfs_nodev", True),
        ("afs", "AFS", True),
        ("fuse.sshfs", "me@server:", True),
        ("fuse.rclone", "remote", True),
        ("fuse.unheard-of", "me@server:/home", True),
        ("fuse", "s3://bucket", True),
        ("ext4", "/dev/sdb1", False),
        ("xfs", "/dev/mapper/data", False),
        ("tmpfs", "tmpfs", False),
        ("overlay", "overlay", False),
        ("zfs", "tank/data", False),
        ("fuseblk", "/dev/sdc1", False),
        ("fuse.mergerfs", "a:b", False),
        ("fuse.gocryptfs", "/home/me/cipher", False),
    ],
)
def test_a_network_file_system_is_told_from_a_disk(
    tmp_path: Path, kind: str, source: str, network: bool
) -> None:
    file = mounts(tmp_path, f"/data, {kind}, {source}")
    assert network_file_system(Path("/data/home/bertune.db"), file) == (kind if network else None)
    assert network_file_system(Path("/elsewhere/bertune.db"), file) is None


def test_the_deepest_mount_counts(tmp_path: Path) -> None:
    file = mounts(
        tmp_path,
        "/home, nfs4, server:/home",
        "/home/me/scratch, ext4, /dev/sdb1",
        "/home/me/scratch/shared, cifs, //server/share",
    )
    assert network_file_system(Path("/home/me/bertune.db"), file) == "nfs4"
    assert network_file_system(Path("/home/me/scratch/bertune.db"), file) is None
    assert network_file_system(Path("/home/me/scratch/shared/bertune.db"), file) == "cifs"
    assert network_file_system(Path("/homes/bertune.db"), file) is None


def test_a_mount_over_another_hides_it(tmp_path: Path) -> None:
    file = mounts(tmp_path, "/data, nfs4, server:/data", "/data, ext4, /dev/sdb1")
    assert network_file_system(Path("/data/bertune.db"), file) is None
    file = mounts(tmp_path, "/data, ext4, /dev/sdb1", "/data, nfs4, server:/data")
    assert network_file_system(Path("/data/bertune.db"), file) == "nfs4"


def test_a_bind_mount_has_the_type_of_what_it_shows(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "40 22 0:50 / /mnt/nas rw shared:3 master:4 - nfs4 nas:/export rw,vers=4.2\n"
        "41 22 0:50 /bertune /var/lib/bertune rw - nfs4 nas:/export rw,vers=4.2\n"
    )
    assert network_file_system(Path("/var/lib/bertune/bertune.db"), file) == "nfs4"


def test_blanks_and_backslashes_of_a_mount_point_are_read(tmp_path: Path) -> None:
    file = mounts(tmp_path, r"/mnt/my\040files\134x, cifs, //server/my\040share")
    assert network_file_system(Path("/mnt/my files\\x/bertune.db"), file) == "cifs"
    assert network_file_system(Path("/mnt/my"), file) is None


def test_a_link_leads_to_where_the_file_is(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    file = mounts(tmp_path, f"{real.resolve()}, nfs4, server:/data")
    assert network_file_system(tmp_path / "link" / "bertune.db", file) == "nfs4"


def test_a_system_without_the_list_of_mounts_has_none(tmp_path: Path) -> None:
    assert network_file_system(tmp_path, tmp_path / "absent") is None


def test_the_list_of_this_machine_can_be_read() -> None:
    assert network_file_system(Path("/proc")) is None


def test_a_server_refuses_a_network_file_system_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr("service.local.database_claim.network_file_system", lambda path: "nfs4")
    with pytest.raises(StartupError, match=r"network file system \(nfs4\).*BERTUNE_DATABASE_URL"):
        claim_database(f"sqlite:///{home / 'bertune.db'}")
    assert not home.exists()


def test_postgresql_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.local.database_claim.network_file_system", lambda path: "nfs4")
    assert claim_database("postgresql+psycopg://server/bertune") is None

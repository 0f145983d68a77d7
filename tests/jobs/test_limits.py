"""A container's share of the machine, by both versions of control groups."""

import os

import pytest

from sgfd.jobs import limits, usable_cores, usable_memory

GIB = 2**30
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def grouped(tmp_path, monkeypatch):
    """Be in groups: lines of /proc/self/cgroup, and files below /sys/fs/cgroup."""

    def put(lines, files):
        own, root = tmp_path / "cgroup", tmp_path / "groups"
        own.write_text("".join(f"{line}\n" for line in lines))
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{content}\n")
        monkeypatch.setattr(limits, "_OWN", own)
        monkeypatch.setattr(limits, "_GROUPS", root)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    return put


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        (["0::/"], {"memory.max": GIB, "cpu.max": "250000 100000"}),
        (  # the tightest of the groups above, which docs of version 2 call effective
            ["0::/pods/ours"],
            {
                "pods/ours/memory.max": 2 * GIB,
                "pods/ours/cpu.max": "max 100000",
                "pods/memory.max": GIB,
                "pods/cpu.max": "300000 100000",
            },
        ),
        (
            ["4:memory:/docker/1234", "3:cpu,cpuacct:/docker/1234", "1:name=systemd:/"],
            {
                "memory/docker/1234/memory.limit_in_bytes": GIB,
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "cpu/docker/1234/cpu.cfs_quota_us": 300000,
                "cpu/docker/1234/cpu.cfs_period_us": 100000,
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
            },
        ),
        (  # a path of the host's, as a container of version 1 is told
            ["4:memory:/not/here", "3:cpu:/not/here"],
            {
                "memory/memory.limit_in_bytes": GIB,
                "cpu/cpu.cfs_quota_us": 250000,
                "cpu/cpu.cfs_period_us": 100000,
            },
        ),
    ],
)
def test_a_container_has_what_its_groups_have(grouped, lines, files):
    grouped(lines, files)
    assert usable_cores() == 3
    assert usable_memory() == GIB


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ([], {}),
        (["0::/"], {}),
        (["0::/"], {"memory.max": "max", "cpu.max": "max 100000"}),
        (["0::/"], {"memory.max": "", "cpu.max": "100000 0"}),
        (["0::/"], {"memory.max": "²", "cpu.max": "9" * 5000}),
        (["nonsense", "1:cpu:", "0::/a\0b"], {}),
    ],
)
def test_without_a_limit_it_is_the_machine(grouped, lines, files):
    grouped(lines, files)
    assert usable_cores() == 64
    assert usable_memory() == MACHINE


def test_less_than_a_core_is_one(grouped):
    grouped(["0::/"], {"cpu.max": "20000 100000"})
    assert usable_cores() == 1


def test_outside_linux_every_core_is_usable(grouped, monkeypatch):
    grouped([], {})
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()

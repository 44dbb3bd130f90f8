# SPDX-License-Identifier: GPL-2.0
"""The patched QEMU under libvirt, with the domain of Documentation/libvirt: the switch, and a live migration."""

import json
import shutil
import socket
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

from vbw import initrd
from vbw.guest import Guest
from vbw.libvirt import Libvirt

pytestmark = pytest.mark.skipif(not shutil.which("libvirtd"), reason="no libvirt")

DOMAIN = "Documentation/libvirt/domain.xml"
NAME = "wce"
UUID = "9f1c3a52-5b0e-4a7d-9c39-2f0d6f1b7e23"
EVENT = "BLOCK_WRITE_CACHE_CHANGED"
# On a serial line the guest's agent goes on after a migration.
ARGUMENTS = "console=ttyS0 loglevel=5 panic=-1 cryptomgr.notests no_timer_check tsc=reliable vbw.serial"


@pytest.fixture
def prefix(env, folder):
    """The patched QEMU where "make qemu_install" puts it."""
    place = folder / "prefix"
    subprocess.run([env.src / "scripts/qemu-install.sh", place], check=True, capture_output=True)
    yield place
    shutil.rmtree(place)


def domain(env, folder, prefix, image, place):
    """The domain as it is documented, with paths of this test, and what the harness's guest needs."""
    ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
    tree = ET.parse(env.src / DOMAIN)
    root = tree.getroot()
    assert root.findtext("name") == NAME
    # The same one on both hosts.
    ET.SubElement(root, "uuid").text = UUID
    root.find("devices/emulator").text = str(prefix / "bin/qemu-system-x86_64")
    root.find("devices/disk/source").set("file", str(image))
    for name, text in (("kernel", env.kernel), ("initrd", initrd.build(env)), ("cmdline", ARGUMENTS)):
        ET.SubElement(root.find("os"), name).text = str(text)
    devices = root.find("devices")
    for kind, path, more in (("file", folder / "console.log", {"append": "on"}),
                             ("unix", place / "agent", {"mode": "bind"}),
                             ("file", folder / "kmsg", {"append": "on"})):
        serial = ET.SubElement(devices, "serial", type=kind)
        ET.SubElement(serial, "source", path=str(path), **more)
    result = place / "domain.xml"
    tree.write(result)
    return result


class Agent(Guest):
    """The guest of a domain, at the other end of a socket that QEMU listens on."""

    def __init__(self, host):
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(host.folder / "agent"))
        super().__init__(line, host.logs / "guest.log", lambda: 600.0)
        self.resync(120)


@pytest.fixture
def hosts(folder):
    """Two machines with libvirt, as it seems to them."""
    made = [Libvirt(folder, name) for name in ("one", "two")]
    yield made
    for host in made:
        host.end()


def mode(host):
    """As libvirt's user sees it."""
    (disk,) = host.qmp(NAME, "query-block")
    return "write back" if disk["inserted"]["cache"]["writeback"] else "write through"


def wait_for_mode(guest, wanted):
    """The guest has followed a change by the host."""
    guest.until(f"[ \"$(cat /sys/block/vda/cache_type)\" = '{wanted}' ]")


def test_domain(env, folder, prefix, image, hosts):
    one, two = hosts
    for host in hosts:
        domain(env, folder, prefix, image, host.folder)
    one("create", one.folder / "domain.xml")
    assert one.qmp(NAME, "qom-get", path="/machine/peripheral/ua-data", property="set-wce") is True
    guest = Agent(one)
    guest("insmod /vbw/virtio_blk_wce.ko")
    guest.until("[ -b /dev/vda ]")
    assert guest("cut -c24 /sys/block/vda/device/features") == "1", "SET_WCE"

    # The guest switches, and who manages the host is told.
    waiter = one.start("qemu-monitor-event", NAME, "--event", EVENT, "--timeout", "60")
    end = time.monotonic() + 60
    while waiter.poll() is None and mode(one) == "write back" and time.monotonic() < end:
        guest("echo 'write through' > /sys/block/vda/cache_type")
    said = waiter.communicate(timeout=90)[0]
    assert EVENT in said, said
    assert json.loads(said[said.index("{"):said.rindex("}") + 1])["writeback"] is False
    assert mode(one) == "write through"

    # It moves while it writes, and its mode goes with it.
    writer = guest.start("fio --name=move --filename=/dev/vda --rw=randwrite --bs=4k --size=8m --direct=1 "
                         "--time_based --runtime=3600 --verify=crc32c --verify_fatal=1")
    one("migrate", NAME, two.uri, "tcp://127.0.0.1", "--live", "--unsafe", "--xml", two.folder / "domain.xml", seconds=300)
    assert one("list", "--name") == "" and two("list", "--name") == NAME
    guest.close()
    guest = Agent(two)
    writer.guest = guest
    assert writer.running()
    assert guest("cat /sys/block/vda/cache_type") == mode(two) == "write through"

    # There it goes on as before: the host sets the mode by a command, and the guest follows.
    two.qmp(NAME, "block-set-write-cache", id="ua-data", writeback=True)
    wait_for_mode(guest, "write back")
    assert guest("echo 'write through' > /sys/block/vda/cache_type; cat /sys/block/vda/cache_type_status") \
        == "ok write through"
    assert mode(two) == "write through"
    writer.signal("INT")
    assert "err= 0" in writer.wait(60).text
    guest.close()

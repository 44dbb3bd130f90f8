# SPDX-License-Identifier: GPL-2.0
"""The driver beside the kernel's own, on the same device: what a guest can see is the same."""

import re
import string
import subprocess

import pytest

from test_switch import expect, set_mode
from test_testdev import DRIVERS
from vbw import kernel_log
from vbw.machine import Config, Disk
from vbw.testdev import machine_with
from vbw.vm import MODULES, OURS, wait_for_disks

SYS = "/sys/block/vda"

# What differs from one time that a disk is bound to the next: numbers of devices and of disks,
# counters, and which CPU has done what.
VOLATILE = re.compile(r"\./(diskseq|stat|inflight|dev|bdi/.*|.*/uevent|uevent|power/.*|queue/.*nr_requests.*|.*/dev)$")

# Each file below the disk, with its mode and what is in it.
LIST = """cd $(readlink -f /sys/block/vda) || exit 1
    find . -type f | sort | while read -r file; do
        echo "$(stat -c %a $file) $file $(cat $file 2> /dev/null | tr '\\n' ' ')"
    done
    echo interrupts names $(sed -n 's/.*virtio[0-9]*-\\(req.*\\)/\\1/p' /proc/interrupts)
    echo minor number $(cut -d: -f2 dev)"""


def seen(vm):
    """What the guest sees of the disk."""
    lines = vm.guest(LIST, 60).splitlines()
    found = {}
    for line in lines:
        mode, path, text = (line + "  ").split(" ", 2)
        if not VOLATILE.match(path):
            found[path] = (mode, text.strip())
    return found


def compare(vm, disks=1):
    """Load one driver after the other; what is seen with each is returned where it differs."""
    views = []
    for driver in DRIVERS:
        vm.load(driver)
        vm.guest(wait_for_disks(disks))
        views.append(seen(vm))
        vm.guest(f"rmmod {driver}")
    stock, ours = views
    assert len(stock) > 60
    return {path: (stock.get(path), ours.get(path))
            for path in stock.keys() | ours.keys() if stock.get(path) != ours.get(path)}


# What this driver has in addition.
MORE = {"./cache_type_status": (None, ("444", "none"))}
# What is different for a disk that can be switched: it takes flushes and FUA in either mode.
FUA = {"./queue/fua": (("444", "0"), ("444", "1"))}
FLUSHES = {"./queue/write_cache": (("644", "write through"), ("644", "write back"))}

DEVICES = {
    "default": {},
    "queues": {"num-queues": 4},
    "topology": {"logical_block_size": 512, "physical_block_size": 4096, "min_io_size": 8192,
                 "opt_io_size": 65536, "discard_granularity": 65536},
    "blocks-of-4096": {"logical_block_size": 4096, "physical_block_size": 4096},
    "read-only": {"read_only": True},
    "small-queue": {"queue-size": 16},
    "no-discards": {"discard": False, "write-zeroes": False},
    "limited-discards": {"max-discard-sectors": 2048, "max-write-zeroes-sectors": 512},
    "write-through": {"write-cache": "off"},
    "no-switch": {"config-wce": False, "set-wce": False},
    "legacy": {"transport": "pci-legacy"},
    "packed": {"packed": True},
    "serial": {"serial": "a-serial-number"},
}


@pytest.mark.parametrize("props", DEVICES.values(), ids=DEVICES.keys())
def test_sysfs(boot, disk, props):
    """All files of the disk, their modes and contents."""
    vm = boot(Config(cpus=4, disks=[disk(**props)]), driver=None)
    expected = dict(MORE)
    if props.get("config-wce", True):
        expected |= FUA
        if props.get("write-cache") == "off":
            expected |= FLUSHES
    assert compare(vm) == expected


ODD_DEVICES = {
    "secure-erase": ["--with", "secure-erase"],
    "zoned": ["--zones", "8192"],
}


@pytest.mark.parametrize("options", ODD_DEVICES.values(), ids=ODD_DEVICES.keys())
def test_sysfs_of_odd_devices(boot, testdev, options):
    vm = boot(machine_with(testdev(*options)), driver=None)
    assert compare(vm) == MORE | FUA


def test_names_and_minors(boot):
    """More disks than there are letters. Which device has which name is not promised by anybody."""
    node = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
    disks = [Disk(node, name=f"disk{number}") for number in range(28)]
    vm = boot(Config(disks=disks, memory_mb=1024), driver=None)
    for driver in DRIVERS:
        vm.guest(f"insmod {MODULES[driver]}")
        lines = vm.guest("cd /sys/block && grep : vd*/dev | tr : ' '", 60).splitlines()
        minors = {line.split("/")[0]: int(line.split()[-1]) for line in lines}
        names = [f"vd{letter}" for letter in string.ascii_lowercase] + ["vdaa", "vdab"]
        assert minors == {name: 16 * number for number, name in enumerate(names)}
        vm.guest(f"rmmod {driver}", 60)


@pytest.mark.parametrize("driver", DRIVERS)
def test_priorities(boot, testdev, driver):
    """A request has the I/O priority of who made it in its header."""
    device = testdev()
    vm = boot(machine_with(device), driver=driver)
    vm.guest(wait_for_disks(1))
    job = "fio --name=x --filename=/dev/vda --size=64k --bs=4k --rw=write --direct=1 --output=/dev/null"
    for classes, value in (("--prioclass=1 --prio=3", 1 << 13 | 3), ("--prioclass=2 --prio=6", 2 << 13 | 6),
                           ("", 2 << 13 | 4)):
        vm.guest(f"{job} {classes}")
        assert device.priority() == value


def parameters(vm, driver):
    """{name: (mode, value)} of the files in sysfs."""
    lines = vm.guest(f"cd /sys/module/{driver}/parameters && "
                     "for file in *; do echo $file $(stat -c %a $file) $(cat $file); done").splitlines()
    return {name: rest for name, *rest in (line.split() for line in lines)}


def test_parameters_in_sysfs(boot, disk):
    """They can be read, and those that the kernel's own driver lets root change, be changed."""
    vm = boot(Config(cpus=4, disks=[disk(**{"num-queues": 4})]), driver=None)
    for driver in DRIVERS:
        vm.load(driver, "num_request_queues=3 queue_depth=16")
        assert parameters(vm, driver) == {"num_request_queues": ["644", "3"], "poll_queues": ["644", "0"],
                                          "queue_depth": ["444", "16"]}
        assert len(vm.guest(f"ls {SYS}/mq").split()) == 3
        # They are for disks that are bound after that.
        vm.guest(f"""cd /sys/module/{driver}/parameters && echo 4 > num_request_queues && echo 1 > poll_queues
            d=$(basename $(readlink -f {SYS}/device)); cd /sys/bus/virtio/drivers/{driver}
            echo $d > unbind && echo $d > bind""")
        vm.guest(wait_for_disks(1))
        assert "3/0/1 default/read/poll queues" in vm.guest("dmesg | tail -n 20")
        assert "Invalid argument" in vm.guest(
            f"echo x 2>&1 > /sys/module/{driver}/parameters/poll_queues || true")
        vm.guest(f"rmmod {driver}")


def module_info(path, field):
    """What a module's information has in a field."""
    return subprocess.run(["modinfo", "-F", field, path], check=True, capture_output=True,
                          text=True).stdout.splitlines()


@pytest.mark.stock_kernel("its own module is the other one")
def test_module_information(env):
    """The same devices and parameters, and a description of each."""
    stock = f"/usr/lib/modules/{env.release}/kernel/drivers/block/virtio_blk.ko.xz"
    for field in ("alias", "license", "parmtype"):
        assert sorted(module_info(env.module, field)) == sorted(module_info(stock, field)) != []
    assert len(module_info(env.module, "parm")) == 3
    assert all(len(text) > 40 for text in module_info(env.module, "parm"))
    assert module_info(env.module, "description") and module_info(env.module, "author")


@pytest.mark.parametrize("driver", DRIVERS)
def test_shutdown(boot, disk, driver):
    """The machine is switched off under load: no complaint, and no hang."""
    vm = boot(Config(disks=[disk(**{"num-queues": 2})]), driver=driver)
    if driver == OURS:
        assert set_mode(vm, "write through") == "OK"
        expect(vm, "write through", "ok write through")
    vm.guest.start("fio --name=load --filename=/dev/vda --size=16m --rw=randrw --bs=4k --direct=1 "
                   "--ioengine=libaio --iodepth=16 --time_based --runtime=600 --output=/dev/null")
    vm.guest.until("[ $(awk '{ print $5 }' /sys/block/vda/stat) -gt 100 ]")
    vm.guest.end()
    vm.process.wait(60)
    vm.kill()
    assert "reboot: Power down" in (vm.folder / "console.log").read_text(errors="replace")
    assert not [line for line in kernel_log.read(vm.folder / "kmsg") if "given up" in line.text]

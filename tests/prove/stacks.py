# SPDX-License-Identifier: GPL-2.0
"""Trials of what lies between the disk and whoever writes: device mapper, LVM, md."""

from . import guestfiles
from .bench import MIB, Bench
from .raw import CACHE_TYPE, DISK, IN_FLIGHT, RULES, SYSFS, everybody, set_mode, writer
from .trials import trial

DM = {"binaries": ["/usr/sbin/dmsetup"], "modules": ["dm-mod"]}
MD = {"binaries": ["/usr/sbin/dmsetup", "/usr/sbin/mdadm"], "modules": ["dm-mod", "raid1", "raid456"]}
LVM = {"binaries": ["/usr/sbin/lvm"], "modules": ["dm-mod"]}


@trial("L4", quick=True)
def l4(bench: Bench) -> None:
    """dm-linear set up on a disk in write through, which then turns to write back; fsync on dm."""
    initrd = guestfiles.build(bench.env, **DM)
    vm = bench.boot(bench.serve(), props={"write-cache": "off"}, initrd=initrd)
    vm.guest(guestfiles.load_modules(bench.env, DM["modules"]))
    bench.expect("the mode", vm.guest(f"cat {SYSFS}/cache_type"), "write through")
    vm.guest("dmsetup() { /usr/sbin/dmsetup --noudevsync \"$@\"; }; dmsetup create linear --table "
             f"\"0 $(cat {SYSFS}/size) linear $(cat {SYSFS}/dev) 0\" && dmsetup mknodes")
    set_mode(vm, "write back")
    bench.load(vm, *(words.replace(DISK, "/dev/mapper/linear") for words in everybody(1)[:len(RULES)]))


def _legs(bench: Bench, number: int) -> str:
    """Shell code that makes dm-linear parts of the disk, which are the legs of what is to come."""
    size = 8 * MIB // 512
    return "dmsetup() { /usr/sbin/dmsetup --noudevsync \"$@\"; }; " + "; ".join(
        f"dmsetup create leg{leg} --table \"0 {size} linear $(cat {SYSFS}/dev) {leg * size}\""
        for leg in range(number)) + "; dmsetup mknodes"




def _md(level: int, legs: int, mode: str) -> None:
    @trial(f"raid{level}-{mode.split()[1]}", what=f"md raid{level} set up in {mode}, then the guest switches")
    def raid(bench: Bench) -> None:
        initrd = guestfiles.build(bench.env, **MD)
        vm = bench.boot(bench.serve(where="anywhere"), initrd=initrd)
        vm.guest(guestfiles.load_modules(bench.env, MD["modules"]))
        set_mode(vm, mode)
        names = " ".join(f"/dev/mapper/leg{leg}" for leg in range(legs))
        vm.guest(_legs(bench, legs) + f"; /usr/sbin/mdadm --create /dev/md0 --run --assume-clean --metadata=1.2 "
                 f"--level={level} --raid-devices={legs} --bitmap=none {names}")
        words = [writer(how, index, blocks=64, depth=2 if how in IN_FLIGHT else 1).replace(DISK, "/dev/md0")
                 for index, how in enumerate(RULES)]
        bench.load(vm, CACHE_TYPE, "toggle=20000", words[0], seconds=bench.seconds / 2)
        bench.load(vm, CACHE_TYPE, "toggle=20000", *words, seconds=bench.seconds / 2)
        bench.at_least("switches", bench.notes["switches"], 10)
        vm.guest("/usr/sbin/mdadm --stop /dev/md0")


for _mode in ("write through", "write back"):
    _md(1, 2, _mode)
    _md(5, 3, _mode)


def _lvm(mode: str) -> None:
    @trial(f"lvm-{mode.split()[1]}", what=f"A logical volume that was made in {mode}, then the guest switches")
    def volume(bench: Bench) -> None:
        initrd = guestfiles.build(bench.env, **LVM)
        vm = bench.boot(bench.serve(where="anywhere"), initrd=initrd)
        vm.guest(guestfiles.load_modules(bench.env, LVM["modules"]))
        set_mode(vm, mode)
        # Nothing but the kernel makes devices here.
        vm.guest("export LVM_SYSTEM_DIR=/tmp/lvm; mkdir /tmp/lvm; lvm() { /usr/sbin/lvm \"$@\" --config "
                 "'activation { udev_sync = 0 udev_rules = 0 } devices { use_devicesfile = 0 } "
                 "global { event_activation = 0 }'; }; "
                 f"lvm pvcreate {DISK} && lvm vgcreate group {DISK} && lvm lvcreate -y -n volume -l 100%FREE group && "
                 "lvm vgmknodes")
        bench.load(vm, CACHE_TYPE, "toggle=20000", *(
            words.replace(DISK, "/dev/group/volume") for words in everybody(2)[:len(RULES)]))
        bench.at_least("switches", bench.notes["switches"], 10)


for _mode in ("write through", "write back"):
    _lvm(_mode)

# SPDX-License-Identifier: GPL-2.0-or-later
#
# The devices of the QEMU that scripts/qemu.sh builds: what the tests and the demo use, and nothing
# else, because that builds in half the time.

# Machines: PCI with and without PCI Express, and one with virtio-mmio
CONFIG_I440FX=y
CONFIG_Q35=y
CONFIG_MICROVM=y

# Hot-plug needs ports
CONFIG_PCIE_PORT=y

# Transports, and the disks: ours, the one in another process, and one to compare with
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VHOST_USER_BLK=y
CONFIG_VIRTIO_SCSI=y
CONFIG_SCSI=y

# What the harness talks to the guest with, and what keeps the guest from waiting for entropy
CONFIG_VIRTIO_SERIAL=y
CONFIG_VIRTIO_RNG=y

# What keeps a disk to the memory that it was given
CONFIG_VIRTIO_IOMMU=y

# A guest that ends QEMU with an exit status
CONFIG_ISA_DEBUG=y

# The devices that QEMU's own qtests talk to
CONFIG_TEST_DEVICES=y
CONFIG_PCI_TESTDEV=y

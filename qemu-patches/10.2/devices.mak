# SPDX-License-Identifier: GPL-2.0-or-later
# Devices besides those of scripts/qemu-devices.mak: without CXL, which needs PXB, 10.2 itself does not
# link.
CONFIG_PXB=y
CONFIG_CXL=y

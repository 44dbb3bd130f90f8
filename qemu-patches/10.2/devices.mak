# SPDX-License-Identifier: GPL-2.0-or-later
# Devices besides those of scripts/qemu-devices.mak: without CXL and what goes with that, 10.2 itself does
# not link.
CONFIG_PXB=y
CONFIG_CXL=y
CONFIG_CXL_MEM_DEVICE=y

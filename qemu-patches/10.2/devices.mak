# SPDX-License-Identifier: GPL-2.0-or-later
# Devices besides those of scripts/qemu-devices.mak: without this one 10.2 itself does not link.
CONFIG_CXL=y

# SPDX-License-Identifier: GPL-2.0
"""Virtual machines to try the virtio_blk_wce driver and device in."""

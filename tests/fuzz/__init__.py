# SPDX-License-Identifier: GPL-2.0
"""Fuzzing of the driver by a device that misbehaves."""

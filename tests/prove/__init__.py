# SPDX-License-Identifier: GPL-2.0
"""An independent judge of durability: a storage that forgets, what runs on it, and a checker."""

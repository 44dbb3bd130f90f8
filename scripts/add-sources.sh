#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: called by hooks of mmdebstrap, as scripts/add-sources.sh ROOT SUITE
#
# Adds backports, and source packages, to a Debian that mmdebstrap is making in ROOT.

set -euo pipefail
root=$1 suite=$2
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
lists=$root/etc/apt/sources.list.d

# The mirror is the one that mmdebstrap chose: whatever line names the suite, names it.
# shellcheck disable=SC2016 # apt fills these in
lines=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
	sort -u)
awk -v s="$suite" '$2 == s { print "deb", $1, s "-backports main" }' <<<"$lines" >"$lists/backports.list"
awk '{ print "deb-src", $1, $2, "main" }' <<<"$lines" >"$lists/source.list"
if [ ! -s "$lists/backports.list" ]; then
	echo "error: no line of the sources names $suite"
	exit 1
fi
apt-get update

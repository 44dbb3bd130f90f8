#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/deb.sh [VERSION]
#
# Builds the Debian package virtio-blk-wce-dkms, has lintian look at it, and prints its path. With a VERSION,
# another than the one that debian/changelog and dkms.conf have: tests install one over the other.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$VBW_SRC/debian/changelog")
grep -qx "PACKAGE_VERSION=\"$version\"" "$VBW_SRC/dkms.conf" ||
	die "debian/changelog has the version $version, and dkms.conf has another one"
sources=(Kbuild README.md dkms.conf debian include rust drivers scripts Documentation)

# The sources are copied, because debhelper works among them.
build() {
	local tree=$1/source
	mkdir "$tree"
	cd "$VBW_SRC"
	cp -r "${sources[@]}" "$tree"
	cd "$tree"
	if [ "$2" != "$version" ]; then
		sed -i "1s/($version)/($2)/" debian/changelog
		sed -i "s/^PACKAGE_VERSION=.*/PACKAGE_VERSION=\"$2\"/" dkms.conf
	fi
	# Nothing is compiled, so build-essential is not needed.
	dpkg-buildpackage --build=binary --no-sign --no-check-builddeps
	lintian --no-cfg --display-info --pedantic --fail-on=error,warning,info,pedantic "$1"/*.changes
	cd ..
	rm -rf "$tree"
}

make_deb() { step "deb: building virtio-blk-wce-dkms $2" "$PART_LOG.log" build "$1" "$2"; }

wanted=${1:-$version}
part deb "$(key "$wanted" "$(tools build.list deb.list)" "$(declare -f build)" \
	"$(digest "${sources[@]/#/$VBW_SRC/}")")" make_deb "$wanted"
prune deb 4
echo "$PART/virtio-blk-wce-dkms_${wanted}_all.deb"

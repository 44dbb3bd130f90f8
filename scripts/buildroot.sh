#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/buildroot.sh
#
# Makes sure that the build root exists and prints its path: a small Debian with all compilers,
# tools, the stock kernel and the stock QEMU, made by mmdebstrap from the lists in
# scripts/packages. Of what the demo needs this is the only step that uses the network.
# With BUILDROOT=none the host is used as it is, and the path is /.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

# shellcheck source=scripts/packages/pins
. "$PACKAGES/pins"

# The host needs two tools to make and to enter the root, and Debian's keys; an ordinary user one
# tool more, which sets up the user namespace.
host_tools() {
	local missing=()
	command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
	command -v bwrap >/dev/null || missing+=(bubblewrap)
	[ "$(id -u)" -eq 0 ] || command -v newuidmap >/dev/null || missing+=(uidmap)
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
	[ ${#missing[@]} -gt 0 ] || return 0

	command -v apt-get >/dev/null ||
		die "this host lacks ${missing[*]}, and has no apt-get; install them, or use BUILDROOT=none"
	if [ "$(id -u)" -ne 0 ]; then
		die "this host lacks ${missing[*]}; install them with: sudo apt-get install ${missing[*]}"
	fi
	step "host: installing ${missing[*]}" "$VBW_LOG/host.log" install_host_tools "${missing[@]}"
}

install_host_tools() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y --no-install-recommends "$@" ||
		{ apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

# An ordinary user can make and enter a root only where the host lets users have namespaces.
user_namespaces() {
	[ "$(id -u)" -ne 0 ] || return 0
	unshare --user --map-root-user true 2>/dev/null ||
		die "this host forbids user namespaces to ordinary users;" \
			"run as root, ask for kernel.unprivileged_userns_clone=1, or use BUILDROOT=none"
	if ! grep -q "^$(id -un):" /etc/subuid || ! grep -q "^$(id -un):" /etc/subgid; then
		die "this user has no subordinate ids, which mmdebstrap needs; get them with:" \
			"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
	fi
}

# In a user namespace mmdebstrap gives what it makes to subordinate ids, which nobody has in the one that enter.sh makes.
# There it has to be root's, as on the hosts that tests play, who is the user outside.
give_to_user() { unshare --user --map-root-user --map-auto chown -Rh root:root "$1"; }

make_root() {
	local packages
	packages=$(listed "$PACKAGES"/{build,kernel,debug,intree,qemu,fuzz,test,testdev,lint,prove,deb}.list | paste -sd,)
	# Nobody reads static libraries of LLVM, but for those that programs with checks are linked
	# with, nor the Rust compiler's own source.
	step "build root: installing $SUITE with $(tr , '\n' <<<"$packages" | wc -l) packages and what they need" \
		"$PART_LOG.log" \
		env VBW_PACKAGES="$PACKAGES" "$VBW_SRC/scripts/debian.sh" --include="$packages" \
		--dpkgopt='path-exclude=/usr/lib/llvm-*/lib/*.a' \
		--dpkgopt='path-exclude=/usr/lib/llvm-*/include/*' \
		--dpkgopt='path-include=/usr/lib/llvm-*/lib/clang/*/include/*' \
		--dpkgopt='path-include=/usr/lib/llvm-*/lib/clang/*/libclang_rt.asan*' \
		--dpkgopt='path-include=/usr/lib/llvm-*/lib/clang/*/libclang_rt.fuzzer*' \
		--dpkgopt='path-include=/usr/lib/llvm-*/lib/clang/*/libclang_rt.ubsan*' \
		--dpkgopt='path-exclude=/usr/src/rustc-*' \
		--dpkgopt='path-include=/usr/src/rustc-*/library/*' \
		--customize-hook="$VBW_SRC/scripts/buildroot-hook.sh \"\$1\"" \
		"$SUITE" "$1/root"
	[ "$(id -u)" -eq 0 ] || give_to_user "$1/root"
}

if in_root; then
	echo /
	exit 0
fi

host_tools
user_namespaces
part root "$(key "$(id -u)" "$(declare -f make_root give_to_user)" "$(listed "$PACKAGES"/*.list "$PACKAGES/pins")" \
	"$(digest "$VBW_SRC"/scripts/{debian,add-sources,buildroot-hook}.sh)")" make_root
prune root 2
# That a pin was gone is said whenever the root is used, not only when it is made.
grep -s '^warning:' "$PART_LOG.log" >&2 || true
echo "$PART/root"

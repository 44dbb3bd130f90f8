#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/enter.sh [--net] [--bind FOLDER]… [--bind-ro FOLDER]… [--] CMD [ARG…]
#
# Runs CMD inside the build root: the root read-only, this repository and the cache at their own
# paths, an empty /tmp and /root, no network but loopback (--net leaves the host's), /dev/kvm, /dev/fuse
# and loop devices where the host has them. Further folders that CMD needs are named with --bind and --bind-ro.
# Inside the root, and with BUILDROOT=none, it just runs CMD.
#
# Of the environment only what is listed below and VBW_* gets in, so that a tool that the caller has
# at home cannot change what is built.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"

binds=() net=(--unshare-net --unshare-ipc)
while [ $# -gt 0 ]; do
	case $1 in
	--net)
		net=(--ro-bind /etc/resolv.conf /etc/resolv.conf)
		shift
		;;
	--bind | --bind-ro)
		path=$(cd "$2" && pwd -P) || die "$1 $2: no such folder"
		[ "$1" = --bind ] && binds+=(--bind "$path" "$path") || binds+=(--ro-bind "$path" "$path")
		shift 2
		;;
	--)
		shift
		break
		;;
	*) break ;;
	esac
done
[ $# -gt 0 ] || die "no command; see scripts/enter.sh --help"

! in_root || exec "$@"

root=$("$VBW_SRC/scripts/buildroot.sh")
lock shared "root-$(basename "$(dirname "$root")")" "build root"

binds+=(--bind "$VBW_SRC" "$VBW_SRC" --bind "$VBW_CACHE" "$VBW_CACHE")
devices=()
for path in /dev/kvm /dev/fuse /dev/loop-control /dev/loop[0-9]*; do
	devices+=(--dev-bind-try "$path" "$path")
done
folder=$PWD
case $PWD/ in
"$VBW_SRC"/* | "$VBW_CACHE"/*) ;;
*) folder=$VBW_SRC ;;
esac
userns=()
# As root there may do what root may: the judge of durability mounts a file system of its own, and tests play hosts in
# further user namespaces, and read what is nobody's to read.
[ "$(id -u)" -eq 0 ] || userns=(--unshare-user --uid 0 --gid 0 --cap-add ALL)

environment=(PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8)
for name in TERM CI ACCEL V PYTEST_ADDOPTS NO_COLOR ${!VBW_*}; do
	[ -z "${!name+set}" ] || environment+=("$name=${!name}")
done

# The root's folders are bound one by one, not as /, so that bwrap can make mount points for the
# repository and the cache wherever they are.
exec env -i "${environment[@]}" bwrap \
	--ro-bind "$root/usr" /usr --ro-bind "$root/etc" /etc --ro-bind "$root/var/lib" /var/lib \
	--symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
	--dev /dev "${devices[@]}" --proc /proc --ro-bind /sys /sys \
	--tmpfs /tmp --tmpfs /root --tmpfs /run --dir /var/tmp \
	"${binds[@]}" "${net[@]}" "${userns[@]}" \
	--unshare-pid --die-with-parent --chdir "$folder" \
	"$@"

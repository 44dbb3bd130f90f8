# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by the scripts of this folder: the cache, its keys and locks, progress lines.
#
# The cache holds parts. A part is a folder <cache>/<kind>/<key>; the key is a hash of all that the
# part is made from. It is made in place, under an exclusive lock, and is whole when its stamp
# exists, which is written last: whatever an interrupted run left behind has no stamp and is made
# again from nothing.

VBW_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VBW_CACHE=${VBW_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/virtio-blk-wce}
VBW_LOG=$VBW_CACHE/log
PACKAGES=$VBW_SRC/scripts/packages
VBW_T0=${VBW_T0:-$(date +%s)}
export VBW_SRC VBW_CACHE VBW_T0

STAMP=.complete

# Every script prints the comment at its top when asked for help.
usage_if_asked() {
	case ${1-} in
	-h | --help)
		sed -n '2,/^[^#]/{/^# SPDX/d;/^#$/{s/.*//p;d};s/^# //p}' "$0"
		exit 0
		;;
	esac
}

say() { printf '[%ds] %s\n' $(($(date +%s) - VBW_T0)) "$*" >&2; }

die() {
	say "error: $*"
	exit 1
}

# key STRING…: 16 digits that change when any of the strings does.
key() { printf '%s\0' "$@" | sha256sum | cut -c1-16; }

# digest PATH…: the names and contents of files, and of all files below folders, as one hash.
digest() {
	local path
	for path in "$@"; do
		[ ! -e "$path" ] || find "$path" -type f -print0
	done | sort -zu | xargs -0r sha256sum | sed "s|  $VBW_SRC/|  |" | sha256sum | cut -c1-64
}

# listed FILE…: what lists name, packages or patches, without the comments.
listed() { sed 's/#.*//' "$@" | tr -s '[:space:]' '\n' | sed '/^$/d'; }

# tools LIST…: the versions of what builds, so that a part is made again when they change, and not
# when some other package of the build root does.
tools() {
	gcc --version | sed -n 1p
	rustc --version
	listed "${@/#/$PACKAGES/}" | xargs dpkg-query -W 2>/dev/null || true
}

# clang_suffix CONFIG: what the clang that compiled a kernel has at the end of its name here, if there
# is one of that version.
clang_suffix() {
	local version
	version=$(sed -n 's/^CONFIG_CLANG_VERSION=\([0-9]*\)[0-9]\{4\}$/\1/p' "$1")
	! command -v "clang-$version" >/dev/null || echo "-$version"
}

# kbuild_llvm KDIR: what make has to be told for a module of a kernel that clang has compiled: nothing
# for any other one.
kbuild_llvm() {
	local suffix
	grep -qs '^CONFIG_CC_IS_CLANG=y' "$1/.config" || return 0
	suffix=$(clang_suffix "$1/.config")
	echo "LLVM=${suffix:-1}"
}

# lock shared|exclusive NAME WHAT: takes a lock that lasts until unlock LOCK_FD or until this process,
# and what it becomes by exec, ends. Says what it waits for.
lock() {
	local mode=$1 file=$VBW_CACHE/lock/$2 fd
	mkdir -p "$VBW_CACHE/lock"
	exec {fd}>>"$file"
	if ! flock --"$mode" --nonblock "$fd"; then
		say "$3: waiting for another run that uses it"
		flock --"$mode" "$fd"
	fi
	LOCK_FD=$fd
}

unlock() {
	local fd=$1
	exec {fd}>&-
}

# part KIND KEY MAKER [ARG…]: sets PART to the folder of a part and holds a shared lock on it. Calls
# MAKER with the folder's path first if it is not whole; MAKER exits on failure, and names its logs
# PART_LOG.*
part() {
	local kind=$1 name=$1-$2 maker=$3 held
	PART=$VBW_CACHE/$kind/$2
	# shellcheck disable=SC2034 # for MAKER
	PART_LOG=$VBW_LOG/$name
	shift 3
	lock shared "$name" "$kind"
	if [ ! -e "$PART/$STAMP" ]; then
		unlock "$LOCK_FD"
		lock exclusive "$name" "$kind"
		held=$LOCK_FD
		if [ ! -e "$PART/$STAMP" ]; then
			remove_tree "$PART"
			mkdir -p "$PART"
			"$maker" "$PART" "$@"
			: >"$PART/$STAMP"
		fi
		flock --shared "$held"
	fi
	touch -c "$PART/$STAMP"
}

# What is in a root that was made in a user namespace belongs to ids that only such a namespace can
# remove; the emptied folder is the user's to remove. Whatever may be mounted below is left alone.
remove_tree() {
	[ -e "$1" ] || return 0
	rm -rf --one-file-system "$1" 2>/dev/null && return
	mmdebstrap --unshare-helper rm -rf --one-file-system "$1/root" 2>/dev/null || true
	rm -rf --one-file-system "$1"
}

# keep PART NAME: a user has asked for this part by name. prune leaves it alone until another one of the
# name is asked for.
keep() {
	local other
	for other in "$(dirname "$1")"/*/.kept; do
		[ ! -e "$other" ] || [ "$(cat "$other")" != "$2" ] || rm -f "$other"
	done
	echo "$2" >"$1/.kept"
}

# prune KIND KEEP: removes what is left of interrupted runs, and the parts of a kind beyond the KEEP
# used last, unless something uses them, or a user has asked for them.
prune() {
	local kind=$1 keep=$2 old
	find "$VBW_CACHE/$kind" -mindepth 1 -maxdepth 1 -type d | while read -r old; do
		[ ! -e "$old/.kept" ] || [ ! -e "$old/$STAMP" ] || continue
		[ -e "$old/$STAMP" ] && stat -c "%Y %n" "$old/$STAMP" || echo "0 $old/$STAMP"
	done | sort -rn | awk -v keep="$keep" '$1 == 0 || NR > keep { print $2 }' | while read -r old; do
		old=${old%/*}
		(
			exec {fd}>>"$VBW_CACHE/lock/$kind-${old##*/}"
			flock --exclusive --nonblock "$fd" || exit 0
			rm -f "$old/$STAMP"
			remove_tree "$old"
		)
	done
}

# step TITLE LOG CMD…: runs CMD with its output in LOG and shows that it goes on: a clock on a
# terminal, a line every 30 s elsewhere. On failure it shows the log's end, names it, and exits.
# CMD may be a function. It stops at its first failing command, which holds only as long as nobody
# calls step in a condition: the shell would ignore failures there.
step() {
	local title=$1 log=$2 status ticker
	shift 2
	mkdir -p "$(dirname "$log")"
	say "$title (log: $log)"
	ticking "$title" $$ &
	ticker=$!
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	{ kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
	[ ! -t 2 ] || printf '\r\033[K' >&2
	[ "$status" -ne 0 ] || return 0
	tail -n 25 "$log" | sed 's/^/    /' >&2
	say "failed: $title (status $status, whole log: $log)"
	exit "$status"
}

# The clock of a step. It waits by reading from a pipe that nobody writes to, so that nothing is
# left behind when it is ended, and ends by itself with the process that it tells of.
ticking() {
	local title=$1 parent=$2 start=$SECONDS told=0 past pipe
	exec {pipe}<> <(:)
	while read -r -t 1 -u "$pipe" || kill -0 "$parent" 2>/dev/null; do
		past=$((SECONDS - start))
		if [ -t 2 ]; then
			printf '\r\033[K    %s … %d s' "$title" "$past" >&2
		elif [ $((past / 30)) -gt "$told" ]; then
			told=$((past / 30))
			say "$title: still going, $past s"
		fi
	done
}

# What the pins name, or what the build root has instead when a pin was gone.
versions() {
	# shellcheck source=scripts/packages/pins
	. "$PACKAGES/pins"
	# shellcheck source=/dev/null
	[ ! -s /etc/vbw-root ] || . /etc/vbw-root
}

# kernel_release NAME: the release that a user means by KERNEL=: a whole one, or of the build root's version
# the one with this flavour (amd64, rt-amd64).
kernel_release() {
	local release
	case $1 in
	"" | [0-9]*) echo "$1" ;;
	*)
		release=$(sed -n 's/^LINUX_RELEASE=//p' "$("$VBW_SRC/scripts/buildroot.sh")/etc/vbw-root")
		echo "${release%%+*}+deb13-$1"
		;;
	esac
}

in_root() { [ -s /etc/vbw-root ] || [ "${BUILDROOT-}" = none ]; }

# What the root lacks of another release of QEMU, VBW_QEMU_RELEASE, is fetched from outside, where the
# network is.
fetch_qemu() {
	in_root || [ -z "${VBW_QEMU_RELEASE-}" ] || [ -n "${VBW_QEMU_PACKAGE-}" ] ||
		VBW_QEMU_PACKAGE=$("$VBW_SRC/scripts/qemu-fetch.sh" "$VBW_QEMU_RELEASE")
	export VBW_QEMU_PACKAGE=${VBW_QEMU_PACKAGE-}
}

# fetch_kernel RELEASE: so is what the root lacks of another kernel.
fetch_kernel() {
	local root
	root=$("$VBW_SRC/scripts/buildroot.sh")
	[ -d "$root/usr/src/linux-headers-$1" ] ||
		VBW_KERNEL_PACKAGES=$("$VBW_SRC/scripts/kdir-fetch.sh" "$1")
	export VBW_KERNEL_PACKAGES=${VBW_KERNEL_PACKAGES-}
}

# run_inside "$@": goes on with the calling script inside the build root.
run_inside() {
	in_root || exec "$VBW_SRC/scripts/enter.sh" "$VBW_SRC/scripts/$(basename "$0")" "$@"
}

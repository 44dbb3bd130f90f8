#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/intree.sh [--series | --kernels | --each]
#
# Puts layer and driver into the kernel's own tree: makes a series of patches of this repository, applies it with
# "git am" to linux-source, checks and builds what comes out of it, with the driver built in and as a module, and
# boots that. The last line counts what passed.
#
# With --series it makes only the patches, and prints the folder that has them and their cover letter. With
# --kernels it prints the folder of the kernels, "builtin" and "module", and of "kselftest", what kselftest has
# installed; each kernel is what /usr/lib/modules/RELEASE is for the stock one. With --each it builds the tree
# after each patch.
#
# The kernel is configured as the debug kernel is, with what is in intree/kernel.config besides. There is one work
# tree for each source; a change of the series changes only the files in it that come out different.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"

versions
archive=/usr/src/$LINUX_SOURCE.tar.xz
[ -e "$archive" ] || die "$archive is missing; install $LINUX_SOURCE"
command -v git >/dev/null || die "git is missing; its package is git"
jobs=$(nproc)
# Of the LLVM that rustc has, for both languages.
llvm=LLVM=-19
configs=("$VBW_SRC/scripts/debug.config" "$VBW_SRC/intree/kernel.config")
collection=drivers/block/virtio_blk_wce

patches() { find "$series" -maxdepth 1 -name '*.patch' ! -name '0000-*' | sort; }

# The kernel's files that the series changes, as they are.
unpack_base() {
	python3 "$VBW_SRC/scripts/intree_series.py" --needs | sed "s|^|$LINUX_SOURCE/|" |
		tar -C "$1" --strip-components=1 --use-compress-program="xz -dT$jobs" -xf "$archive" --files-from=-
}
make_base() { step "series: the kernel's files that it changes" "$PART_LOG.log" unpack_base "$1"; }

# The files stay beside the series, for who wants to apply it to no more than these.
compose() {
	python3 "$VBW_SRC/scripts/intree_series.py" "$base" "$1/series"
	ln -s "$base" "$1/base"
}
make_series() { step "series: composing" "$PART_LOG.log" compose "$1"; }

part intree-base "$(key "$(stat -c %s "$archive")" "$(python3 "$VBW_SRC/scripts/intree_series.py" --needs)")" make_base
base=$PART
prune intree-base 2
part intree-series "$(key "$base" "$(rustfmt --version)" "$(digest "$VBW_SRC"/{Documentation,debian/control,drivers,include} \
	"$VBW_SRC"/{intree,rust,tests/guest,tools} "$VBW_SRC"/scripts/{intree_series,rust_imports}.py)")" make_series
series=$PART/series
prune intree-series 4
if [ "${1-}" = --series ]; then
	echo "$series"
	exit
fi

work=$VBW_CACHE/intree-work/$(key "$LINUX_VERSION" "$(stat -c %s "$archive")" "$(tools build.list kernel.list debug.list)")
tree=$work/linux

# What is not compiled is not unpacked; what the kernel's tools read is.
unpack() {
	local top=$LINUX_SOURCE
	rm -rf "$work"
	mkdir -p "$tree"
	tar -C "$tree" --strip-components=1 --use-compress-program="xz -dT$jobs" -xf "$archive" --anchored \
		--exclude="$top/Documentation/devicetree/*" --exclude="$top/Documentation/translations/*" \
		--exclude="$top/tools/testing/selftests/[!kdl]*/*" \
		--exclude="$top/tools/perf/*" --exclude="$top/sound/*.[ch]" \
		--exclude="$top/arch/[!x]*/*.[chS]" --exclude="$top/arch/[!x]*/*.dts*" \
		--exclude="$top/drivers/gpu/*.[ch]" --exclude="$top/drivers/net/*/*.[ch]" \
		--exclude="$top/drivers/media/*.[ch]" --exclude="$top/drivers/staging/*.[ch]" \
		--exclude="$top/drivers/infiniband/*.[ch]" --exclude="$top/drivers/scsi/*.[ch]" \
		--exclude="$top/drivers/iio/*.[ch]" --exclude="$top/drivers/usb/*.[ch]" \
		--exclude="$top/fs/xfs/*.[ch]" --exclude="$top/fs/btrfs/*.[ch]"
	: >"$work/.unpacked"
}

# The tree's files that the series changes are under version control, from outside: a kernel that finds a .git
# has another release. What was there before a checkout and is not changed by it keeps its time.
in_git() { git --git-dir="$work/git" --work-tree="$tree" -c user.name=intree -c user.email= "$@"; }

apply() {
	local scratch=$work/applied
	cd "$tree"
	rm -rf "$scratch"
	if [ ! -e "$work/.base" ]; then
		rm -rf "$work/git"
		git init --quiet --separate-git-dir="$work/git" "$scratch"
		git --git-dir="$work/git" config core.bare false
		find "$base" -type f ! -name "$STAMP" -printf '%P\0' | xargs -0 git --git-dir="$work/git" --work-tree="$tree" add --force
		in_git commit --quiet --message base
		in_git tag base
		rm -rf "$scratch"
		: >"$work/.base"
	fi
	git --git-dir="$work/git" worktree prune
	git --git-dir="$work/git" worktree add --quiet --detach "$scratch" base
	(
		cd "$scratch"
		# shellcheck disable=SC2046 # git has made the names
		git -c user.name=intree -c user.email= am --quiet --committer-date-is-author-date $(patches)
		git rev-parse HEAD >"$work/head"
	)
	in_git checkout --quiet --detach "$(cat "$work/head")"
}

configure() {
	cd "$tree"
	make "$llvm" tinyconfig
	cat "${configs[@]}" >>.config
	choose "$1"
	# Kconfig drops what depends on something that is not there, and says nothing.
	grep -E '^(# )?CONFIG_' "$VBW_SRC/intree/kernel.config" | while read -r line; do
		case $line in
		'#'*) ! grep -q "^$(cut -d' ' -f2 <<<"$line")=" .config ;;
		*) grep -Fqx -- "$line" .config ;;
		esac || { echo "the configuration lacks: $line"; exit 1; }
	done
}

# choose y|m: what becomes of the driver.
choose() {
	cd "$tree"
	scripts/config --set-val VIRTIO_BLK_WCE "$1"
	make "$llvm" olddefconfig
	grep -qx "CONFIG_VIRTIO_BLK_WCE=$1" .config
}

build() {
	cd "$tree"
	make "$llvm" "-j$jobs" bzImage modules
}

# install FOLDER: what is built, as a kernel's package has it.
install_kernel() {
	cd "$tree"
	rm -rf "$1"
	mkdir -p "$1/kernel"
	cp arch/x86/boot/bzImage "$1/vmlinuz"
	make -s "$llvm" kernelrelease >"$1/release"
	sed 's/\.o$/.ko/' modules.order | xargs cp --parents -t "$1/kernel"
}

kselftest() {
	cd "$tree"
	make "$llvm" "-j$jobs" headers
	make -C tools/testing/selftests install TARGETS="$collection" KSFT_INSTALL_PATH="$1" FORCE_TARGETS=1 CC=gcc
}

# The work tree as the series has it; nobody else can change it in the meantime.
synchronize() {
	lock exclusive "intree-work-${work##*/}" "the kernel's tree"
	[ -e "$work/.unpacked" ] || step "tree: unpacking $(basename "$archive")" "$VBW_LOG/intree.unpack.log" unpack
	step "tree: git am" "$VBW_LOG/intree.apply.log" apply
}

make_kernels() {
	synchronize
	step "tree: configuring, with the driver built in" "$PART_LOG.configure.log" configure y
	step "tree: compiling, with the driver built in" "$PART_LOG.builtin.log" build
	step "tree: keeping that kernel" "$PART_LOG.install.log" install_kernel "$1/builtin"
	step "tree: configuring, with the driver as a module" "$PART_LOG.configure.log" choose m
	step "tree: compiling, with the driver as a module" "$PART_LOG.module.log" build
	step "tree: keeping that kernel" "$PART_LOG.install.log" install_kernel "$1/module"
	step "tree: installing kselftest's $collection" "$PART_LOG.kselftest.log" kselftest "$1/kselftest"
	unlock "$LOCK_FD"
}

# after_each: builds what the series changes after each of its patches, with the driver as a module once it is there.
after_each() {
	local commit
	for commit in $(in_git rev-list --reverse "base..$(cat "$work/head")"); do
		in_git log -1 --format='== %s' "$commit"
		in_git checkout --quiet --detach "$commit"
		(cd "$tree" && make "$llvm" olddefconfig && make "$llvm" "-j$jobs" prepare rust/ drivers/block/)
	done
}

if [ "${1-}" = --each ]; then
	synchronize
	step "tree: configuring" "$VBW_LOG/intree.configure.log" configure m
	step "tree: compiling after each patch" "$VBW_LOG/intree.each.log" after_each
	exit
fi

part intree "$(key "$work" "$(digest "$series"/*.patch "${configs[@]}")" \
	"$(declare -f configure choose build install_kernel kselftest)")" make_kernels
kernels=$PART
prune intree 2
if [ "${1-}" = --kernels ]; then
	echo "$kernels"
	exit
fi

passed=1 failed=0
# check TITLE CMD…: as in scripts/lint.sh.
check() {
	local title=$1 output
	shift
	if output=$("$@" 2>&1 </dev/null); then
		say "pass: $title"
		passed=$((passed + 1))
	else
		printf '    %s\n' "${output//$'\n'/$'\n    '}"
		say "FAIL: $title"
		failed=$((failed + 1))
	fi
}

# Which files of Linux's are not as its tools want them is not what this is about: those of the series are.
ours() { in_git diff --name-only base "$(cat "$work/head")"; }
not_ours() { ! grep -F -f <(ours | grep '\.rs$'); }

rustfmtcheck() {
	local output status=0
	output=$(make -C "$tree" "$llvm" rustfmtcheck 2>&1) || status=$?
	[ "$status" -eq 0 ] || not_ours <<<"$output"
}

# Whether MAINTAINERS needs a change is only asked: it has entries for the folders of the layer.
checkpatch() {
	cd "$tree"
	patches | xargs scripts/checkpatch.pl --strict --terse --no-summary --show-types --ignore FILE_PATH_CHANGES
}

# What is made already is not looked at again.
rustdoc() {
	rm -rf "$tree/Documentation/output/rust/rustdoc"
	make -C "$tree" "$llvm" "-j$jobs" rustdoc >"$VBW_LOG/intree.rustdoc.log" 2>&1 || {
		tail -n 25 "$VBW_LOG/intree.rustdoc.log"
		return 1
	}
	[ -e "$tree/Documentation/output/rust/rustdoc/kernel/virtio/index.html" ] || return 1
	! grep -A 4 '^\(warning\|error\)' "$VBW_LOG/intree.rustdoc.log" | grep -F -f <(ours | grep '\.rs$')
}

no_warnings() { ! grep -E 'warning:|WARNING' "$VBW_LOG/intree-${kernels##*/}".{builtin,module}.log | grep -F -f <(ours); }

synchronize
check "checkpatch: the series" checkpatch
check "the compilers, without a warning about the series" no_warnings
check "make rustfmtcheck" rustfmtcheck
check "make rustdoc" rustdoc
unlock "$LOCK_FD"

mkdir -p "$VBW_CACHE/out"
VBW_OUT=$(mktemp -d "$VBW_CACHE/out/$(date +%Y%m%d-%H%M%S)-XXX")
export VBW_OUT
"$VBW_SRC/scripts/run.sh" --intree python3 -m pytest -c "$VBW_SRC/tests/pytest.ini" --junitxml="$VBW_OUT/junit.xml" \
	"$VBW_SRC/tests/intree" || say "tests failed"
p=0 f=1 s=0
python3 "$VBW_SRC/scripts/junit-count.py" "$VBW_OUT/junit.xml" >"$VBW_OUT/tests.count" || true
[ ! -s "$VBW_OUT/tests.count" ] || read -r p f s <"$VBW_OUT/tests.count"
passed=$((passed + p)) failed=$((failed + f))
say "series: $series, kernels: $kernels, logs and results: $VBW_OUT"
echo "$passed passed, $failed failed, $s skipped"
[ "$failed" -eq 0 ]

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/lint.sh
#
# Checks everything that can be checked without running it, and treats warnings as errors. Prints
# what each step found, and how many steps passed.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
run_inside "$@"
cd "$VBW_SRC"

kdir=$("$VBW_SRC/scripts/kdir.sh")
qemu_source=$("$VBW_SRC/scripts/qemu.sh" --source)
passed=0 failed=0

mapfile -t rust < <(find rust drivers tests -name '*.rs' | sort)
mapfile -t c < <(find include rust drivers -name '*.[ch]' | sort)
mapfile -t python < <(find scripts tests -name '*.py' | sort)
mapfile -t patches < <(find qemu-patches -name '*.patch' ! -name 0000-cover-letter.patch | sort)
mapfile -t letters < <(find qemu-patches -name 0000-cover-letter.patch | sort)
mapfile -t shell < <({
	find scripts tests .ci -type f -name '*.sh'
	grep -rIlE '^#!/bin/(ba)?sh' scripts tests .ci debian
} | sort -u)
mapfile -t all < <(find . -path ./.git -prune -o -type f ! -name '*.pyc' -print | sort)

# check TITLE CMD…: a step. What CMD prints is shown only when it fails. No files, no step: an empty
# list means that the search above is wrong.
check() {
	local title=$1 output
	shift
	if output=$("$@" 2>&1 </dev/null); then
		echo "pass: $title"
		passed=$((passed + 1))
	else
		printf '    %s\n' "${output//$'\n'/$'\n    '}"
		echo "FAIL: $title"
		failed=$((failed + 1))
	fi
}

clippy() {
	local work
	work=$VBW_CACHE/lint-work/$(key "$VBW_SRC" "$kdir")
	rm -rf "$work"
	mkdir -p "$work"
	make -C "$kdir" M="$VBW_SRC" MO="$work" -j "$(nproc)" \
		CLIPPY=1 KRUSTFLAGS=-Dwarnings KCFLAGS=-Werror modules
}

linux_checkpatch() {
	local file status=0
	for file in "$@"; do
		"$kdir/scripts/checkpatch.pl" --no-tree --strict --terse --no-summary --show-types \
			--file "$file" || status=1
	done
	# What it keeps for its next run, where there is a git.
	rm -f .checkpatch-camelcase.*
	return $status
}

# Three of its warnings only ask whether one has thought of something, whatever one did.
qemu_checkpatch() {
	local asks='does MAINTAINERS need updating\?|are you using scripts/update-linux-headers'
	# An output that is compared with can't have a comment.
	asks+="|Does new file '.*\.out' need 'SPDX"
	local file
	cd "$qemu_source"
	if for file in "$@"; do
		scripts/checkpatch.pl --no-tree --strict --no-summary --terse "$VBW_SRC/$file" 2>&1 || true
	done | grep -vE "$asks"; then
		return 1
	fi
}

# What a series says of itself is true: each patch has its place in the subject, the letter is of the same
# version, and lists all of them.
whole_series() {
	local letter folder version number file names status=0
	for letter in "$@"; do
		folder=${letter%/*}
		version=$(sed -n 's/^Subject: \[\(.*\) 0*\/[0-9]*\].*/\1/p' "$letter")
		mapfile -t names < <(find "$folder" -maxdepth 1 -name '*.patch' ! -path "$letter" | sort)
		number=0
		for file in "$letter" "${names[@]}"; do
			grep -q "^Subject: \[$version 0*$number/${#names[@]}\] " "$file" ||
				{ echo "$file: not [$version $number/${#names[@]}]"; status=1; }
			number=$((number + 1))
		done
		number=$(sed -n 's/^[^ ].* (\([0-9]*\)):$/\1/p' "$letter" | paste -sd +)
		number=$((${number:-0}))
		[ "$number" -eq ${#names[@]} ] || { echo "$letter lists $number patches of ${#names[@]}"; status=1; }
	done
	return $status
}

# Every file that can carry a comment names its licence in the first lines.
licences() {
	local file status=0
	for file in "${all[@]}"; do
		case $file in
		*/LICENSES/* | */COPYING | */debian/changelog | */debian/source/format | */Documentation/ABI/* | *.patch) continue ;;
		esac
		head -n 5 "$file" | grep -q 'SPDX-License-Identifier: ' || { echo "$file: no SPDX line"; status=1; }
	done
	return $status
}

# Mirrors and registries are the user's business; what is downloaded is named by package alone.
no_hosts() { ! grep -nIE '\b(deb|security|snapshot|ftp|mirrors?|index|static|files|registry)\.[a-z]+\.?[a-z]*\.(org|io|com|net)' "${all[@]}"; }

no_unsafe() { ! grep -nE '^[^/]*\bunsafe\b' -r drivers --include='*.rs' | grep -v 'forbid(unsafe_code)'; }

# Long files do more than one job.
short_files() {
	local file lines status=0
	for file in "${rust[@]}" "${c[@]}" "${python[@]}" "${shell[@]}"; do
		lines=$(wc -l <"$file")
		[ "$lines" -le 600 ] || { echo "$file has $lines lines"; status=1; }
	done
	return $status
}

check "rustfmt: ${#rust[@]} files" rustfmt --check "${rust[@]}"
check "clippy, and the C compiler, without a warning" clippy
check "clippy, for the test devices" scripts/testdev.sh --clippy
check "rustdoc, without a warning" scripts/doc.sh
check "no unsafe in the driver" no_unsafe
check "Linux's checkpatch: $((${#c[@]} + ${#rust[@]})) files" linux_checkpatch "${c[@]}" "${rust[@]}"
[ ${#patches[@]} -eq 0 ] || check "QEMU's checkpatch: ${#patches[@]} patches" qemu_checkpatch "${patches[@]}"
check "${#letters[@]} series of patches, each whole" whole_series "${letters[@]}"
check "shellcheck: ${#shell[@]} scripts" shellcheck -x "${shell[@]}"
check "pyflakes: ${#python[@]} files" python3 -m pyflakes "${python[@]}"
# What modinfo calls a parameter; and a patch has lines that git has cut.
check "codespell" codespell --ignore-words-list parm --skip './.git,./LICENSES,./Documentation/virtio-spec/*.patch,*.pyc' .
check "the cache's promises" scripts/selftest.sh
check "every file names its licence" licences
check "no registry or mirror is named" no_hosts
check "no file of more than 600 lines" short_files

[ -z "${VBW_COUNT-}" ] || echo "$passed $failed 0" >"$VBW_COUNT"
echo "lint: $passed passed, $failed failed"
[ "$failed" -eq 0 ]

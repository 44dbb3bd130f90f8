#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Usage: scripts/qemu-series.sh --import FOLDER | --export FOLDER SERIES RANGE | --count
#
# Carries the patches of qemu-patches into a git repository and back, because a series is changed by
# changing commits, not diffs. Needs git, and runs outside of the build root.
#
# --import makes the repository in FOLDER: the unpatched source is the tag "base", and on it come all
# series, a branch at the end of each. --export writes the commits of RANGE as the patches of SERIES, for
# example: scripts/qemu-series.sh --export ~/qemu reopen fixes..reopen. The text and the version of the
# cover letter are those that it has in qemu-patches already; git adds the list of patches. With
# VBW_QEMU_RELEASE=10.2 both are about that release; then only those patches are written that differ. Their
# numbers follow those of the patches that they are copies of.
#
# --count prints how many lines each series adds outside of tests and documentation, and how many of them are
# neither blank nor comments. The text of the QAPI schema is documentation; what it declares is code.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
usage_if_asked "$@"
PATCHES=$VBW_SRC/qemu-patches

# What a commit of a series is made with, so that the same patches give the same commits.
am() { git am --quiet --committer-date-is-author-date "$@"; }

import() {
	local folder=$1 source name series names=()
	[ ! -e "$folder" ] || die "$folder exists already"
	source=$("$VBW_SRC/scripts/qemu.sh" --source)
	mapfile -t names < <("$VBW_SRC/scripts/qemu.sh" --patches)
	cp -a --reflink=auto "$source" "$folder"
	cd "$folder"
	git init --quiet --initial-branch=base
	git add --all --force
	git commit --quiet --message "base"
	git tag base
	git checkout --quiet --detach base
	for name in "${names[@]}"; do
		series=$(basename "$(dirname "$name")")
		am "$PATCHES/$name"
		git branch --quiet --force "$series"
	done
	git branch
}

# letter_text LETTER: the subject of a cover letter and its text, without what git writes below it.
letter_text() {
	sed -nE '/^Subject: /{:more;N;/\n[^ ]|\n$/!bmore;s/\n[^ ].*|\n$//;s/\n//g;s/^Subject: \[[^]]*\] //;p;q}' "$1"
	echo
	# It reads to the end: what writes to a pipe that nobody reads fails, and with it the export, half done.
	sed '1,/^$/d' "$1" | awk '/^[^ ].* \([0-9]+\):$/ { ended = 1 } !ended'
}

# same_change A B: whether two patches differ in nothing but where their hunks are.
same_change() { cmp -s <(change "$1") <(change "$2"); }
change() { sed 's/^@@ .* @@.*/@@/; /^index /d; /^Subject: /,/^$/d' "$1"; }

# only_what_differs OUT SERIES: gives the patches in OUT the names that those of the same subject have in
# SERIES, and removes them if they do the same. Others get the number that follows.
only_what_differs() {
	local out=$1 series=$2 file name number=0
	for file in "$out"/*.patch; do
		name=$(basename "$(find "$series" -name "*${file##*/[0-9][0-9][0-9][0-9]}")")
		if [ -z "$name" ]; then
			name=$(printf '%04d%s' "$number" "${file##*/[0-9][0-9][0-9][0-9]}")
		fi
		number=$((10#${name%%-*} + 1))
		if [ -e "$series/$name" ] && same_change "$file" "$series/$name"; then
			rm "$file"
		else
			mv "$file" "$out/new-$name"
		fi
	done
	for file in "$out"/new-*; do
		[ ! -e "$file" ] || mv "$file" "${file/new-/}"
	done
}

# follow_numbers SERIES: gives the copies that other releases have of patches of SERIES, and what is said of
# these in the lists of what they do not need, the numbers that the patches have now. Otherwise they would
# be patches of the release besides, and the same change would come twice.
follow_numbers() {
	local series=$1 file rest copy list
	for file in "$PATCHES/$series"/*.patch; do
		rest=${file##*/[0-9][0-9][0-9][0-9]}
		for copy in "$PATCHES"/[0-9]*/"$series"/[0-9][0-9][0-9][0-9]"$rest"; do
			[ ! -e "$copy" ] || [ "${copy##*/}" = "${file##*/}" ] || mv "$copy" "${copy%/*}/${file##*/}"
		done
		for list in "$PATCHES"/[0-9]*/dropped; do
			sed -i "s|^$series/[0-9]\{4\}$rest|$series/${file##*/}|" "$list"
		done
	done
}

export_series() {
	local folder=$1 series=$2 range=$3 out letter version='PATCH v1' text name
	letter=$PATCHES/$series/0000-cover-letter.patch
	[ ! -e "$letter" ] || version=$(sed -n 's/^Subject: \[\(.*\) 0*\/[0-9]*\].*/\1/p' "$letter")
	text='*** SUBJECT HERE ***'
	[ ! -e "$letter" ] || text=$(letter_text "$letter")
	out=$(mktemp -d)
	git -C "$folder" branch --quiet --force export-letter "${range#*..}"
	# Else names of blobs are as long as the repository's size makes them.
	git -C "$folder" -c branch.export-letter.description="$text" -c format.useAutoBase=false \
		-c core.abbrev=7 format-patch --quiet --zero-commit --no-signature --subject-prefix="$version" --cover-letter \
		--cover-from-description=subject --output-directory "$out" "${range%..*}..export-letter"
	git -C "$folder" branch --quiet -D export-letter
	mkdir -p "$PATCHES/${VBW_QEMU_RELEASE-}/$series"
	if [ -n "${VBW_QEMU_RELEASE-}" ]; then
		rm "$out/0000-cover-letter.patch"
		only_what_differs "$out" "$PATCHES/$series"
	fi
	rm -f "$PATCHES/${VBW_QEMU_RELEASE-}/$series"/*.patch
	find "$out" -name '*.patch' -exec cp -t "$PATCHES/${VBW_QEMU_RELEASE-}/$series" {} +
	rm -r "$out"
	[ -n "${VBW_QEMU_RELEASE-}" ] || follow_numbers "$series"
}

# What each patch adds; a comment of C begins with its line, as QEMU's style demands.
count_lines() {
	local series
	printf '%-10s %6s %6s\n' series lines code
	for series in fixes reopen tests set-wce; do
		awk -v series="$series" '
			FNR == 1 { file = "" }
			/^diff --git / { file = substr($4, 3); in_hunk = 0 }
			/^@@ / { in_hunk = 1; comment = 0; next }
			!in_hunk || !file || file ~ /^(tests|docs)\/|^MAINTAINERS$/ { next }
			/^-- $/ { in_hunk = 0; next }
			/^-/ { next }
			{
				text = substr($0, 2)
				gsub(/^[ \t]+|[ \t]+$/, "", text)
				in_c = file ~ /\.[ch]$/
				if (in_c && text ~ /^\/\*/) comment = 1
				is_code = text != "" && !comment && !(file ~ /\.json$/ && text ~ /^#/)
				if (in_c && text ~ /\*\/$/) comment = 0
				if (/^\+/ && !(file ~ /\.json$/ && !is_code)) { lines++; code += is_code }
			}
			END { printf "%-10s %6d %6d\n", series, lines, code }
		' "$PATCHES/$series"/*.patch
	done
}

case ${1-} in
--import) import "$(realpath -m "$2")" ;;
--export) export_series "$2" "$3" "$4" ;;
--count) count_lines ;;
*) die "what to do? see scripts/qemu-series.sh --help" ;;
esac

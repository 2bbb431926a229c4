# SPDX-License-Identifier: GPL-2.0 OR MIT
# shellcheck shell=bash
#
# Kernel source trees: unpacked, and packed to what modules are compiled against. Sourced after lib.sh.

# Left out when unpacking, half of the source: nothing that builds a kernel for a virtual machine or the crates is in there.
not_unpacked=(
	--exclude-vcs --exclude='*.dts' --exclude='*.dtsi' --exclude='*/Documentation/*/*' --exclude='*/tools/testing/*'
	--exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/net/*/*.[ch]' --exclude='*/drivers/media/*.[ch]' --exclude='*/sound/*.[ch]'
)

# unpack_source SOURCE TREE LOG: a directory (which is copied) or a tarball, without what is left out
unpack_source() {
	local from=$1 tree=$2 log=$3 decompress
	mkdir -p -- "$tree"
	case $from in
	*.xz) decompress=(xz -dcT0) ;;
	*.zst) decompress=(zstd -dcq) ;;
	*.gz | *.tgz) decompress=(gzip -dc) ;;
	*.bz2) decompress=(bzip2 -dc) ;;
	*) decompress=(cat) ;;
	esac
	# Opened out here: the root has a /usr of its own.
	{
		if [[ -d $from ]]; then
			tar -C "$from" "${not_unpacked[@]}" -cf - . | tar -C "$tree" -xf -
		else
			in_root "${decompress[@]}" <"$from" | tar -C "$tree" --strip-components=1 "${not_unpacked[@]}" -xf -
		fi
	} >"$log" 2>&1 || die "the kernel source $from cannot be unpacked ($(first_error "$log")); log: $log"
	[[ -f $tree/Kbuild && -f $tree/rust/Makefile ]] ||
		die "$from is not the source of a Linux kernel with Rust support"
	# A directory somebody built in.
	[[ ! -e $tree/.config ]] || in_root make -C "$tree" -s mrproper >>"$log" 2>&1 </dev/null ||
		die "make mrproper failed in a copy of $from; log: $log"
}

# pack_build TREE BUILD LOG: copies what modules are compiled against, without the objects: the list of
# scripts/package/install-extmod-build plus Rust's part
pack_build() {
	local tree=$1 build=$2 log=$3
	mkdir -p -- "$build"
	(
		cd -- "$tree" && {
			printf '%s\n' Makefile Kbuild .config Module.symvers include scripts arch/x86/include rust tools/objtool/objtool
			[[ ! -e System.map ]] || echo System.map
			find . -maxdepth 1 -name '.*.toml'
			find arch/x86 -maxdepth 1 -name 'Makefile*'
		} | tar -cf - --exclude='*.o' --exclude='*.bc' --exclude='.*.cmd' --exclude='*.ko' -T - | tar -C "$build" -xf -
	) >>"$log" 2>&1 || die "the kernel tree cannot be packed ($(first_error "$log")); log: $log"
}

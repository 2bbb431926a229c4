# SPDX-License-Identifier: GPL-2.0 OR MIT
# shellcheck shell=bash
#
# What the scripts share: where things are, how they report, and how a cache entry is made. Sourced, not run.
#
# The cache (${XDG_CACHE_HOME:-~/.cache}/rust-vfio-mdev):
#   root-<key>/            private root with the tools                        scripts/root
#   source-<series>/       kernel source package: version and tarball         scripts/kernel-source
#   kernel-<name>-<key>/   vmlinux, modules, and build/ to compile against    scripts/kernel-build
#   stock-<release>-<key>/ a distribution's kernel, its modules and headers   scripts/stock-kernel
#   headers-<release>-<key>/  build/ to compile against such headers          scripts/headers-build
#   qemu-<version>-<key>/  one QEMU of the test machine, self-contained       scripts/qemu
#   modules/ target/       what was built from one checkout                   scripts/modules, scripts/lab
#   used/                  which checkout uses what                           scripts/clean
#   cargo/ home/ lab/      downloaded crates; a home directory; what the lab keeps
#   logs/ lock/ tmp/ mnt/  logs; lock files; entries being made; mount point of the root
#
# An entry is made in tmp/ under its lock and renamed when it is complete, so one that exists is whole. Whatever lies in
# tmp/ and is not locked belongs to nobody any more.

set -Eeuo pipefail
# A failure that no message was written for is a bug of these scripts; it is not to be silent.
trap 'printf "error: %s, line %s: \"%s\" failed with status %s\n" "$0" "$LINENO" "$BASH_COMMAND" "$?" >&2' ERR

# An interruption is called one, whatever step it hits, and once: by the script that a person or make started. What bash runs
# next after a signal is the trap, before any message that the failed step would have had.
: "${SCRIPTS_OUTERMOST:=$$}"
export SCRIPTS_OUTERMOST
# Where a function runs with its output in a log, the trap would write there.
exec {stderr_fd}>&2
interrupted() {
	trap - ERR
	trap '' INT TERM HUP
	if [[ $SCRIPTS_OUTERMOST == "$$" ]]; then
		[[ ! -t $stderr_fd ]] || printf '\r\033[K' >&"$stderr_fd"
		printf '%s\n' 'error: interrupted; what was finished is kept, and the next run goes on from there' >&"$stderr_fd"
	fi
	exit $((128 + $1))
}
trap 'interrupted 1' HUP
trap 'interrupted 2' INT
trap 'interrupted 15' TERM

# A user's may lack the system's directories.
PATH=$PATH:/usr/sbin:/sbin

CHECKOUT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=scripts/versions
. "$CHECKOUT/scripts/versions"

say() { printf '%s\n' "==> $*" >&2; }
warn() { printf '%s\n' "warning: $*" >&2; }
die() {
	printf '%s\n' "error: $*" >&2
	exit 1
}

cache_dir() {
	local base=${XDG_CACHE_HOME:-}
	# A relative XDG_CACHE_HOME is to be ignored, says the XDG base directory specification.
	if [[ $base != /* ]]; then
		base=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache
	fi
	mkdir -p -- "$base/rust-vfio-mdev" ||
		die "the cache directory $base/rust-vfio-mdev cannot be created; set XDG_CACHE_HOME to a directory you can write to"
	cd -- "$base/rust-vfio-mdev" && pwd -P
}
CACHE=$(cache_dir)

for path in "$CHECKOUT" "$CACHE"; do
	[[ $path != *[[:space:]:%]* ]] ||
		die "'$path' contains a blank, ':' or '%', which kernel builds cannot cope with; use another directory"
	case $path/ in
	/usr/* | /etc/* | /bin/* | /sbin/* | /lib*/* | /dev/* | /proc/* | /sys/*)
		die "'$path' cannot be used inside the private root, which has its own /${path#/}; use another directory"
		;;
	esac
done

mkdir -p -- "$CACHE"/{cargo,home,lab,lock,logs,mnt,modules,target,tmp,used}

# short_hash: 12 hex digits that identify what is read from standard input
short_hash() { sha256sum | cut -c1-12; }

# without_comments FILE: what of a script or configuration can matter
without_comments() { sed '/^[[:space:]]*#/d; /^[[:space:]]*$/d' -- "$1"; }

# This checkout's part in the names of what is built from it.
# shellcheck disable=SC2034
CHECKOUT_KEY=$(printf '%s' "$CHECKOUT" | short_hash)

# need_root WHY: makes sure that as_root will work, asking for the password now if there is one to ask for
need_root() {
	[[ $EUID != 0 ]] || return 0
	command -v sudo >/dev/null || die "$1 needs root: run make as root, or install sudo"
	sudo -n true 2>/dev/null || sudo -v || die "$1 needs root, and sudo refuses: run make as root, or give this user the right to use sudo"
}

# as_root CMD…: runs a command as root
as_root() {
	if [[ $EUID == 0 ]]; then "$@"; else sudo -- "$@"; fi
}

# proxy_env: prints the proxy settings of the environment as NAME=value lines (sudo drops them)
proxy_env() {
	local name
	for name in {http,https,ftp,all,no}_proxy; do
		[[ -z ${!name:-} ]] || printf '%s\n' "$name=${!name}"
		name=${name^^}
		[[ -z ${!name:-} ]] || printf '%s\n' "$name=${!name}"
	done
}

# apt_access: prints how this system's apt gets at its mirrors (proxies, certificates, credentials' places) as apt configuration, for
# an apt that starts from an empty one
apt_access() {
	apt-config dump | grep -E '^Acquire::((https?|ftp|socks)(::|;| )|Retries|ForceIPv[46])' || true
	[[ ! -e /etc/apt/auth.conf ]] || printf 'Dir::Etc::netrc "/etc/apt/auth.conf";\n'
	[[ ! -e /etc/apt/auth.conf.d ]] || printf 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'
}

# need_space MEGABYTES WHAT: refuses to start something the cache's file system has no room for
need_space() {
	local free
	free=$(df --output=avail -BM -- "$CACHE" | tail -n 1 | tr -dc 0-9)
	((free >= $1)) ||
		die "$2 needs $1 MB in $CACHE and there are $free MB; free some space or set XDG_CACHE_HOME to a directory elsewhere"
}

# lock NAME: waits until nobody else works on NAME; the lock lasts as long as this process and its children
lock() {
	exec {lock_fd}>"$CACHE/lock/$1"
	if ! flock -n "$lock_fd"; then
		say "waiting for another process that is working on $1"
		flock "$lock_fd"
	fi
}

# hand_out DIR FILE…: lets DIR hold copies of these files and no others. Another process that reads there meanwhile finds every
# file whole; those that have not changed are left alone.
hand_out() {
	local directory=$1 file copy
	local -A kept=()
	shift
	mkdir -p -- "$directory"
	for file; do
		copy=$directory/${file##*/}
		kept[$copy]=1
		cmp -s -- "$file" "$copy" && continue
		cp -- "$file" "$copy.new"
		mv -f -- "$copy.new" "$copy"
	done
	for copy in "$directory"/*; do
		[[ ${kept[$copy]:-} ]] || rm -rf -- "$copy"
	done
}

# sweep: removes what dead processes left in tmp/ (a live one holds the lock of the same name)
sweep() {
	local left name
	for left in "$CACHE"/tmp/*; do
		[[ -e $left ]] || continue
		name=${left##*/}
		(
			exec {fd}>"$CACHE/lock/$name"
			flock -n "$fd" || exit 0
			say "removing what an interrupted run left behind: $name"
			remove_tree "$left"
		)
	done
}

# remove_tree DIR: rm -rf, as root where the files are root's
remove_tree() {
	rm -rf --one-file-system -- "$1" 2>/dev/null || as_root rm -rf --one-file-system -- "$1"
}

# private_apt DIRECTORY SUITE…: prepares a private apt configuration in DIRECTORY, which reaches these Debian suites with
# signatures checked, and lets apt use it in this process. The system's own need not have the suites and is not touched.
private_apt() {
	local directory=$1
	shift
	mkdir -p -- "$directory"/{lists,archives}/partial "$directory/none"
	: >"$directory/status"
	"$CHECKOUT/scripts/debian-sources" "$@" >"$directory/sources.list"
	cat >"$directory/apt.conf" <<EOF
Dir::State "$directory";
Dir::State::status "$directory/status";
Dir::Cache "$directory";
Dir::Etc::sourcelist "$directory/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$directory/none";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
EOF
	export APT_CONFIG=$directory/apt.conf LC_ALL=C
}

# use_entry ENTRY: notes that this checkout uses a cache entry, and since when (scripts/clean keeps such entries)
use_entry() {
	local directory=$CACHE/used/$CHECKOUT_KEY
	mkdir -p -- "$directory"
	[[ -f $directory/path ]] || printf '%s\n' "$CHECKOUT" >"$directory/path"
	: >"$directory/${1##*/}"
}

# publish TMP ENTRY: makes a finished directory the cache entry, on disk before it gets its name
publish() {
	sync -f "$1"
	as_owner_of "$1" mv -T -- "$1" "$2"
}

# as_owner_of PATH CMD…: runs a command as this user, or as root if PATH is root's
as_owner_of() {
	local path=$1
	shift
	if [[ -O $path ]]; then "$@"; else as_root "$@"; fi
}

# first_error LOG: the line of a log that says best what went wrong
first_error() {
	local line
	line=$(grep -m 1 -E '(^|[^a-z])(error(\[E[0-9]+\])?:|E: |fatal:|\*\*\* )' -- "$1" || tail -n 1 -- "$1")
	printf '%.200s' "$line"
}

# without_progress LOG: what make and Cargo said besides what they were doing
without_progress() {
	grep -vE '^( +([A-Z]+|Compiling|Checking|Documenting|Finished|Generated|Updating|Locking|Adding|Blocking|Download(ing|ed)) |make(\[[0-9]+\])?: (Entering|Leaving)|\{"reason":)' -- "$1" || true
}

# run_logged LOG CMD…: runs a command with its output in a log file
run_logged() {
	local log=$1 status=0
	shift
	"$@" >"$log" 2>&1 </dev/null || status=$?
	unless_interrupted "$status"
}

# unless_interrupted STATUS: returns it, unless it is that of a command which one of these signals ended
unless_interrupted() {
	case $1 in
	129 | 130 | 143) interrupted $(($1 - 128)) ;;
	esac
	return "$1"
}

# beside LOG CMD…: starts a command beside what follows, with its output in a log file. It is a job with a process group of its own, which
# ends at the latest when this script does. There can be one at a time.
beside() {
	local log=$1
	shift
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	set +m
	beside_job=$!
	trap 'kill -TERM -- "-$beside_job" 2>/dev/null || true' EXIT
}
# joined: waits for it and returns its status
joined() {
	local status=0
	wait "$beside_job" || status=$?
	trap - EXIT
	unless_interrupted "$status"
}

# progress LABEL STEPS LOG CMD…: runs a command with its output in LOG and tells how far it is, counted in lines of the form
# "  CC  file.o" (kernel) or "   Compiling crate" (cargo) out of STEPS expected ones (0: not known). One line that changes on
# a terminal, a line every 30 seconds elsewhere; nothing at all if the command has no step to do.
progress() {
	local label=$1 steps=$2 log=$3
	shift 3
	local status=0
	: >"$log"
	"$@" 2>&1 </dev/null | show_progress "$label" "$steps" "$log" || status=$?
	unless_interrupted "$status"
}

show_progress() {
	local label=$1 steps=$2 log=$3 line done=0 shown=0 started=$SECONDS last=0 text terminal=
	[[ ! -t 2 ]] || terminal=1
	while IFS= read -r line || [[ -n $line ]]; do
		printf '%s\n' "$line" >&3
		[[ $line =~ ^\ +([A-Z]+|Compiling|Downloading|Checking|Documenting)\ +(\[M\]\ +)?(.*) ]] || continue
		done=$((done + 1))
		if ((done == 1)); then
			say "$label (log: $log)"
		fi
		text="    $done steps"
		if ((steps > 0)); then
			text="    $((done < steps ? done * 100 / steps : 99)) %"
		fi
		text+=", $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s"
		if [[ $terminal ]]; then
			printf '\r\033[K%.78s' "$text  ${BASH_REMATCH[3]}" >&2
			shown=1
		elif ((SECONDS - started - last >= 30)); then
			printf '%s\n' "$text" >&2
			last=$((SECONDS - started))
		fi
	done 3>>"$log"
	if [[ $terminal ]] && ((shown)); then
		printf '\r\033[K' >&2
	fi
}

# root_key, root_dir: the private root that this checkout uses
root_key() {
	{
		printf '%s\n' "$ROOT_SUITE" "${ROOT_PACKAGES[@]}"
		without_comments "$CHECKOUT/scripts/root"
	} | short_hash
}
root_dir() { printf '%s' "$CACHE/root-$(root_key)"; }

# in_root CMD…: runs a command in the private root
in_root() { "$CHECKOUT/scripts/in-root" "$@"; }

#!/usr/bin/env bash
# Makes the Debian packages muster-server and muster-agent of programs that are built already. The same programs, sources and commit
# give the same bytes.
# usage: packaging/deb.sh [--binaries DIR] [--out DIR] [--version VERSION] [--compression xz|gzip]
#   --binaries DIR     where the programs are (default: target/release)
#   --out DIR          where the packages go (default: target/deb)
#   --version VERSION  the packages' version (default: that of Cargo.toml)
#   --compression HOW  xz: small (the default); gzip: made in seconds
set -euo pipefail
usage() { sed -n '/^# usage/,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 64; }
binaries="" out="" version="" compression=xz
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --binaries) binaries=$(realpath -m "$2") ;;
    --out) out=$(realpath -m "$2") ;;
    --version) version=$2 ;;
    --compression) compression=$2 ;;
    *) usage ;;
  esac
  shift 2
done
cd "$(dirname "$0")/.."
binaries=${binaries:-$PWD/target/release}
out=${out:-$PWD/target/deb}
# A version before another one (1.0.0-rc.1) is written with `~` here.
version=${version:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml | sed 's/-/~/')}
[ -n "$version" ] || { echo "Cargo.toml has no version: give --version" >&2; exit 1; }
architecture=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)} DPKG_DEB_THREADS_MAX=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

# The packages of the C library that PROGRAM… need.
libraries() {
  if command -v dpkg-shlibdeps >/dev/null; then
    mkdir -p "$work/shlibs/debian"
    printf 'Source: muster\n\nPackage: muster\nArchitecture: any\n' >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && dpkg-shlibdeps -O "$@" 2>"$work/shlibs/said") | sed -n 's/^shlibs:Depends=//p' && return
    cat "$work/shlibs/said" >&2
    return 1
  fi
  # The newest version of a symbol is the oldest C library that has it.
  printf 'libc6 (>= %s)' "$(cat "$@" | grep -ao 'GLIBC_2\.[0-9][0-9.]*' | sort -uV | tail -n 1 | cut -d_ -f2)"
  for program in "$@"; do ldd "$program"; done | grep libgcc_s >/dev/null && printf ', libgcc-s1'
  echo
}

put() { install -D -m "$1" "$2" "$3"; } # MODE FROM TO

# TEMPLATE TO NAME=VALUE…
fill() {
  local from=$1 to=$2 words=() pair
  shift 2
  for pair in "$@"; do words+=(-e "s|@${pair%%=*}@|${pair#*=}|g"); done
  sed "${words[@]}" "$from" >"$to"
}

# Every key commented out, so that what is built in holds until somebody wants it otherwise, but for where join tokens are.
legend='# A key behind `#` is what is built in, one behind `# ` an example.'
commented() {
  sed -E 's/^([a-z][a-z-]* *=)/#\1/' docs/muster.toml | awk '
    /^\[/ { table = substr($0, 2, length($0) - 2) }
    /^# join-tokens = / { $0 = "join-tokens = \"/var/lib/muster/join\"" }
    /^# join-token-file = / {
      $0 = "join-token-file = \"" (table == "pcs-agent" ? "/etc/muster/join-token" : "/var/lib/muster/join/" table "/token") "\""
    }
    { print }'
}
of_agent() {
  printf '# Every key of the collector. Flags and MUSTER_… variables go before this file. An unknown key is an error.\n%s\n\n' "$legend"
  commented | sed -n '/^\[pcs-agent\]/,/^\[/{/^\[pcs-agent\]/p;/^\[/!p}'
}

# NAME, as in packaging/deb/NAME.control, then the words that its scripts are filled with.
build() {
  local name=$1 root=$work/$1 package=muster-$1
  shift
  put 644 packaging/deb/copyright "$root/usr/share/doc/$package/copyright"
  put 644 docs/packages.md "$root/usr/share/doc/$package/packages.md"
  mkdir -p "$root/DEBIAN"
  (cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
  (cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
  for script in postinst prerm postrm; do
    fill "packaging/deb/$script" "$root/DEBIAN/$script" "$@"
    chmod 755 "$root/DEBIAN/$script"
  done
  fill "packaging/deb/$name.control" "$root/DEBIAN/control" VERSION="$version" ARCHITECTURE="$architecture" \
    SIZE="$(du -sk --apparent-size "$root" | cut -f1)" LIBRARIES="$(libraries "$root"/usr/bin/*)"
  mkdir -p "$out"
  dpkg-deb --root-owner-group "-Z$compression" $([ "$compression" = xz ] || echo -z1) --build "$root" "$out/${package}_${version}_$architecture.deb" >/dev/null
  echo "$out/${package}_${version}_$architecture.deb"
}

for program in muster muster-{orchestrator,repository,pes-evaluator}; do
  put 755 "$binaries/$program" "$work/server/usr/bin/$program"
done
for unit in orchestrator repository pes-evaluator; do
  put 644 "packaging/systemd/muster-$unit.service" "$work/server/usr/lib/systemd/system/muster-$unit.service"
done
put 644 packaging/systemd/sysusers.conf "$work/server/usr/lib/sysusers.d/muster.conf"
{ echo "$legend"; commented; } >"$work/muster.toml"
put 644 "$work/muster.toml" "$work/server/etc/muster/muster.toml"
build server USER=muster DATA="orchestrator repository pes-evaluator join" FILES="" \
  UNITS="muster-orchestrator.service muster-repository.service muster-pes-evaluator.service" \
  STOPPED="muster-pes-evaluator.service muster-repository.service muster-orchestrator.service"

put 755 "$binaries/muster-pcs-agent" "$work/agent/usr/bin/muster-pcs-agent"
put 644 packaging/systemd/muster-pcs-agent.service "$work/agent/usr/lib/systemd/system/muster-pcs-agent.service"
of_agent >"$work/agent.toml"
put 644 "$work/agent.toml" "$work/agent/etc/muster/agent.toml"
build agent USER= DATA=pcs-agent FILES=/etc/muster/join-token UNITS=muster-pcs-agent.service STOPPED=muster-pcs-agent.service

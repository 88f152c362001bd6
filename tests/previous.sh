#!/usr/bin/env bash
# The programs of the version before this one, from which installations are upgraded: builds the commit that tests/previous-version
# names, into target/previous/release, and prints that directory. What it shares with this version is not built again.
# usage: tests/previous.sh
set -euo pipefail
cd "$(dirname "$0")/.."
commit=$(cat tests/previous-version)
place=$(realpath -m target/previous)

skip() {
  echo "SKIPPED, NOT PASSED: an upgrade from the version before: $1" >&2
  [ -z "${MUSTER_REQUIRE_PREVIOUS:-}" ] || exit 1
  exit 0
}
git cat-file -e "$commit^{commit}" 2>/dev/null || skip "this copy of the repository does not have the commit $commit"
if [ "$(cat "$place/made" 2>/dev/null || true)" != "$commit" ]; then
  rm -rf "$place"
  mkdir -p "$place/source"
  git archive "$commit" | tar -x -m -C "$place/source"
  # Dependencies that are the same are there already.
  [ ! -d target/release ] || cp -a --reflink=auto target/release "$place/release"
  CARGO_TARGET_DIR="$place" cargo build --release --bins --locked --quiet --manifest-path "$place/source/Cargo.toml" >&2
  echo "$commit" >"$place/made"
fi
echo "$place/release"

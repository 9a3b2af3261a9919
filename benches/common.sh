# What the benches share, to be sourced: where they work, what they start, how they count.
#
# A bench sets ROUNDS. Here come $work, a directory of its own that is removed at the end, $DRAY, the program to measure
# (default: a build as it ships), and the functions below. Results are lines of numbers in $work/results/NAME.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
mkdir -p "${WORK:-$target}"
work=$(mktemp -d -p "$(realpath "${WORK:-$target}")")
mkdir "$work/results"
pids=()
# shellcheck disable=SC2154 # it is the loop's own
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$0: $*"
  exit 1
}

# need PACKAGE:COMMAND…: ends with a message unless Debian's packages are there
need() {
  local entry missing=()
  PATH=$PATH:/usr/sbin:/sbin
  for entry in "$@"; do
    command -v "${entry#*:}" >/dev/null || missing+=("${entry%%:*}")
  done
  ((${#missing[@]} == 0)) || fail "install these first: apt-get install ${missing[*]}"
}

# Builds the program, unless DRAY names one.
build_dray() {
  if [[ -z ${DRAY:-} ]]; then
    cargo build --locked --profile dist
    DRAY=$(realpath "$target")/dist/dray
  fi
  readonly DRAY
}

# started PID LOG PATTERN: waits until the server has written its address; sets $address
started() {
  pids+=("$1")
  address=
  while [[ -z $address ]]; do
    kill -0 "$1" 2>/dev/null || { cat "$2" >&2; exit 1; }
    sleep 0.01
    address=$(sed -n "s/.*$3\(127\.0\.0\.1:[1-9][0-9]*\).*/\1/p" "$2" | head -n 1)
  done
}

# registry_settings DIR [LISTEN [CERTIFICATE KEY]]: writes settings for a docker-registry that serves DIR; prints their file
registry_settings() {
  local dir=$1 tls=''
  mkdir -p "$dir"
  (($# < 4)) || tls=", tls: {certificate: $3, key: $4}"
  cat >"$dir.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
http: {addr: "${2:-127.0.0.1:0}"$tls}
storage: {filesystem: {rootdirectory: $dir}}
YML
  echo "$dir.yml"
}

# start_registry DIR…: Debian's docker-registry with those settings; sets $address and $server, its process
start_registry() {
  local log=$work/registry.$RANDOM
  : >"$log"
  docker-registry serve "$(registry_settings "$@")" >"$log" 2>&1 &
  server=$!
  started "$server" "$log" 'listening on '
}

# start_dray ARGUMENT…: `dray serve`; sets $address and $server, its process
start_dray() {
  local log=$work/serve.$RANDOM
  : >"$log"
  "$DRAY" serve "$@" >"$log" 2>&1 &
  server=$!
  started "$server" "$log" 'serving on https*:\/\/'
}

stop() {
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

# blob LAYOUT MEDIA-TYPE: stores stdin, prints its descriptor
blob() {
  local layout=$1 media_type=$2 digest
  cat >"$layout/new"
  digest=$(sha256sum "$layout/new" | cut -d ' ' -f 1)
  jq -nc --arg t "$media_type" --arg d "sha256:$digest" --argjson s "$(stat -c %s "$layout/new")" \
    '{mediaType: $t, digest: $d, size: $s}'
  mv "$layout/new" "$layout/blobs/sha256/$digest"
}

# image LAYOUT NAME LAYERS MIB: adds an image of layers of MIB MiB each to an OCI layout. The layers are random: real
# ones are compressed, and do not compress again.
image() {
  local layout=$1 layers config
  mkdir -p "$layout/blobs/sha256" "$layout/root"
  layers=$(for _ in $(seq "$3"); do
    head -c "${4}M" /dev/urandom >"$layout/root/data"
    tar -C "$layout/root" --format=ustar -c data | blob "$layout" application/vnd.oci.image.layer.v1.tar
  done | jq -sc .)
  config=$(jq -nc --argjson l "$layers" \
    '{architecture: "amd64", os: "linux", rootfs: {type: "layers", diff_ids: [$l[].digest]}}' |
    blob "$layout" application/vnd.oci.image.config.v1+json)
  jq -nc --argjson c "$config" --argjson l "$layers" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $c, layers: $l}' |
    blob "$layout" application/vnd.oci.image.manifest.v1+json |
    jq -c --arg n "$2" '. + {annotations: {"org.opencontainers.image.ref.name": $n}}' >>"$layout/manifests"
  rm -r "$layout/root"
  jq -sc '{schemaVersion: 2, manifests: .}' "$layout/manifests" >"$layout/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
}

# note NAME NUMBER…: a line of results
note() { printf '%s\n' "${*:2}" >>"$work/results/$1"; }

# median NAME [COLUMN]: of a column of results
median() {
  sort -n -k "${2:-1},${2:-1}" "$work/results/$1" |
    awk -v n="${2:-1}" '{v[NR] = $n} END {print v[int((NR + 1) / 2)]}'
}

#!/usr/bin/env bash
# What it costs to carry a bundle: build, import and `serve --bundle`, each against what people do without dray.
#
#   benches/bundle.sh            a bundle of 2 GB, 5 rounds
#   SIZE_MB=500 ROUNDS=3 benches/bundle.sh
#
# Prints a table with medians over the rounds; the candidates take turns within a round, so that a busy machine is as
# unfair to one as to the other, and the ratios hold where the seconds do not. Needs Debian's docker-registry, skopeo,
# time, curl and jq. Works below WORK (default: the build directory), which must have room for about 7 × SIZE_MB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SIZE_MB=${SIZE_MB:-2000} ROUNDS=${ROUNDS:-5} LAYER_MB=${LAYER_MB:-100}
readonly IMAGES=$((SIZE_MB / LAYER_MB))
readonly REPOSITORY=ghcr.io/acme/app

target=${CARGO_TARGET_DIR:-target}
mkdir -p "${WORK:-$target}"
work=$(mktemp -d "$(realpath "${WORK:-$target}")/bench.XXXXXX")
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT

if [[ -z ${DRAY:-} ]]; then
  cargo build --locked --release
  DRAY=$(realpath "$target")/release/dray
fi
readonly DRAY

say() { printf '%s\n' "$*" >&2; }

# start_registry DIR: serves DIR; its address is in $address, its process id in $registry
start_registry() {
  local dir=$1
  mkdir -p "$dir"
  cat >"$dir.yml" <<YML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
http: {addr: 127.0.0.1:0}
storage: {filesystem: {rootdirectory: $dir}}
YML
  docker-registry serve "$dir.yml" >"$dir.log" 2>&1 &
  registry=$!
  pids+=("$registry")
  address=
  while [[ -z $address ]]; do
    kill -0 "$registry" 2>/dev/null || { cat "$dir.log" >&2; exit 1; }
    sleep 0.05
    address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$dir.log" | head -n 1)
  done
}

stop_registry() {
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

# One OCI layout with $IMAGES images of one layer each. The layers are random: layers are compressed, and do not compress again.
make_images() {
  local layout=$1 number layer config manifests=()
  mkdir -p "$layout/blobs/sha256" "$work/root"
  for number in $(seq "$IMAGES"); do
    head -c "${LAYER_MB}M" /dev/urandom >"$work/root/data"
    layer=$(tar -C "$work/root" --format=ustar -c data | blob "$layout" application/vnd.oci.image.layer.v1.tar)
    config=$(jq -nc --argjson l "$layer" \
      '{architecture: "amd64", os: "linux", rootfs: {type: "layers", diff_ids: [$l.digest]}}' |
      blob "$layout" application/vnd.oci.image.config.v1+json)
    manifests+=("$(jq -nc --argjson c "$config" --argjson l "$layer" \
      '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $c, layers: [$l]}' |
      blob "$layout" application/vnd.oci.image.manifest.v1+json |
      jq -c --arg n "$number" '. + {annotations: {"org.opencontainers.image.ref.name": $n}}')")
  done
  printf '%s\n' "${manifests[@]}" | jq -sc '{schemaVersion: 2, manifests: .}' >"$layout/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  rm -r "$work/root"
}

# skopeo_all LAYOUT ADDRESS: copies every image as it is
skopeo_all() {
  local number
  for number in $(seq "$IMAGES"); do
    skopeo copy -q --all --preserve-digests --dest-tls-verify=false "oci:$1:$number" "docker://$2/$REPOSITORY:$number"
  done
}
export -f skopeo_all
export IMAGES REPOSITORY

# measure NAME DIR COMMAND…: appends "seconds peak-memory-MiB peak-disk-MiB" of the command to results/NAME.
# Disk is what DIR grows by, looked at 20 times a second.
measure() {
  local name=$1 dir=$2 before peak=0 now seconds memory
  shift 2
  mkdir -p "$dir"
  before=$(du -s -B1 "$dir" | cut -f 1)
  command time -o "$work/time" -f '%e %M' "$@" >"$work/out" 2>&1 &
  local pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    now=$(du -s -B1 "$dir" 2>/dev/null | cut -f 1 || true)
    ((${now:-0} > peak)) && peak=$now
    sleep 0.05
  done
  wait "$pid" || { cat "$work/out" >&2; exit 1; }
  now=$(du -s -B1 "$dir" | cut -f 1)
  ((now > peak)) && peak=$now
  read -r seconds memory <"$work/time"
  printf '%s %s %s\n' "$seconds" "$((memory / 1024))" "$(((peak - before) / 1048576))" >>"$work/results/$name"
}

# How long from the start of `serve --bundle` to the answer to a first pull, the peak of its memory, and what it wrote.
measure_serve() {
  local start end pid url='' before after
  before=$(du -s -B1 "$work/built" | cut -f 1)
  : >"$work/serve.log"
  start=$(date +%s%N)
  "$DRAY" serve --bundle "$work/built/bundle.tar" --trust "$work/plant.pub" --listen 127.0.0.1:0 >"$work/serve.log" 2>&1 &
  pid=$!
  pids+=("$pid")
  while [[ -z $url ]]; do
    kill -0 "$pid" 2>/dev/null || { cat "$work/serve.log" >&2; exit 1; }
    url=$(grep -o '127\.0\.0\.1:[1-9][0-9]*' "$work/serve.log" | head -n 1 || true)
  done
  curl -sf "http://$url/v2/$REPOSITORY/manifests/1" -H 'Accept: application/vnd.oci.image.manifest.v1+json' -o "$work/manifest"
  end=$(date +%s%N)
  curl -sf "http://$url/v2/$REPOSITORY/blobs/$(jq -r '.layers[0].digest' "$work/manifest")" -o /dev/null
  after=$(du -s -B1 "$work/built" | cut -f 1)
  printf '%s %s %s\n' \
    "$(awk "BEGIN {printf \"%.3f\", ($end - $start) / 1e9}")" \
    "$(awk '/^VmHWM/ {print int($2 / 1024)}' "/proc/$pid/status")" \
    "$(((after - before) / 1048576))" >>"$work/results/serve"
  stop_registry "$pid"
}

# column NAME N: the median of a column
column() {
  sort -n -k "$2,$2" "$work/results/$1" | awk -v n="$2" '{v[NR] = $n} END {print v[int((NR + 1) / 2)]}'
}

# row TITLE NAME BASE: one line of the table, with the time as a ratio to BASE's
row() {
  awk -v title="$1" -v s="$(column "$2" 1)" -v m="$(column "$2" 2)" -v d="$(column "$2" 3)" -v b="$(column "$3" 1)" \
    'BEGIN {printf "| %-34s | %8.2f | %6.2f | %8d | %8d |\n", title, s, (b > 0 ? s / b : 0), m, d}'
}

mkdir "$work/results"
say "making $IMAGES images of $LAYER_MB MB"
make_images "$work/layout"
start_registry "$work/upstream"
upstream=$address
skopeo_all "$work/layout" "$upstream"

{
  printf 'apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: bench}\nspec:\n  nodes: [linux/amd64]\n  images:\n'
  for number in $(seq "$IMAGES"); do printf -- '    - %s:%s\n' "$REPOSITORY" "$number"; done
} >"$work/bundle.yaml"
"$DRAY" keygen -q -o "$work/plant" >/dev/null
readonly FROM=(--upstream "ghcr.io=http://$upstream/ghcr.io")
"$DRAY" lock -f "$work/bundle.yaml" -o "$work/lock.json" "${FROM[@]}" >/dev/null

for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  rm -rf "$work/built"
  measure build "$work/built" "$DRAY" build --lock "$work/lock.json" -o "$work/built/bundle.tar" --key "$work/plant.key" "${FROM[@]}"

  rm -rf "$work/copied"
  measure cp "$work/copied" cp "$work/built/bundle.tar" "$work/copied/bundle.tar"
  rm -rf "$work/copied"
  measure cpsync "$work/copied" sh -c 'cp "$1" "$2" && sync "$2"' - "$work/built/bundle.tar" "$work/copied/bundle.tar"
  rm -rf "$work/copied"

  measure import "$work/imported" "$DRAY" import "$work/built/bundle.tar" --store "$work/imported/store" --trust "$work/plant.pub"
  rm -rf "$work/imported"

  start_registry "$work/peer"
  measure skopeo "$work/peer" bash -c 'skopeo_all "$@"' - "$work/layout" "$address"
  stop_registry "$registry"
  rm -rf "$work/peer"

  measure_serve
done

size=$(stat -c %s "$work/built/bundle.tar")
cat <<TABLE
$IMAGES images, bundle of $((size / 1000000)) MB ($((size / 1048576)) MiB), medians of $ROUNDS rounds

| what                               |  seconds |  × cp | mem MiB  | disk MiB |
|------------------------------------|---------:|-------:|---------:|---------:|
$(row "cp of the bundle" cp cp)
$(row "cp of the bundle, and sync" cpsync cp)
$(row "dray build, from a registry" build cp)
$(row "dray import" import cp)
$(row "skopeo copy --all into a registry" skopeo cp)
$(row "dray serve --bundle: first answer" serve cp)

import is $(awk "BEGIN {printf \"%.1f\", $(column skopeo 1) / $(column import 1)}") × as fast as skopeo copy --all into docker-registry.
Disk of serve --bundle is what it wrote while it answered a manifest and a layer.
TABLE

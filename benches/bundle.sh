#!/usr/bin/env bash
# What it costs to carry a bundle: build, import and `serve --bundle`, each against what people do without dray.
#
#   benches/bundle.sh            a bundle of 2 GB, 5 rounds
#   SIZE_MB=500 ROUNDS=3 benches/bundle.sh
#
# Prints a table with medians over the rounds; the candidates take turns within a round, so that a busy machine is as
# unfair to one as to the other, and the ratios hold where the seconds do not. Needs Debian's docker-registry, skopeo,
# time, curl and jq. Works below WORK (default: the build directory), which must have room for about 7 × SIZE_MB.
# shellcheck source=benches/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly SIZE_MB=${SIZE_MB:-2000} ROUNDS=${ROUNDS:-5} LAYER_MB=${LAYER_MB:-100}
readonly IMAGES=$((SIZE_MB / LAYER_MB))
readonly REPOSITORY=ghcr.io/acme/app

need docker-registry:docker-registry skopeo:skopeo time:/usr/bin/time curl:curl jq:jq
build_dray

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
  note "$name" "$seconds" "$((memory / 1024))" "$(((peak - before) / 1048576))"
}

# How long from the start of `serve --bundle` to the answer to a first pull, the peak of its memory, and what it wrote.
measure_serve() {
  local began ended before after
  before=$(du -s -B1 "$work/built" | cut -f 1)
  began=$(date +%s%N)
  start_dray --bundle "$work/built/bundle.tar" --trust "$work/plant.pub" --listen 127.0.0.1:0
  curl -sf "http://$address/v2/$REPOSITORY/manifests/1" -H 'Accept: application/vnd.oci.image.manifest.v1+json' -o "$work/manifest"
  ended=$(date +%s%N)
  curl -sf "http://$address/v2/$REPOSITORY/blobs/$(jq -r '.layers[0].digest' "$work/manifest")" -o /dev/null
  after=$(du -s -B1 "$work/built" | cut -f 1)
  note serve "$(awk "BEGIN {printf \"%.3f\", ($ended - $began) / 1e9}")" \
    "$(awk '/^VmHWM/ {print int($2 / 1024)}' "/proc/$server/status")" "$(((after - before) / 1048576))"
  stop "$server"
}

# row TITLE NAME BASE: one line of the table, with the time as a ratio to BASE's
row() {
  awk -v title="$1" -v s="$(median "$2" 1)" -v m="$(median "$2" 2)" -v d="$(median "$2" 3)" -v b="$(median "$3" 1)" \
    'BEGIN {printf "| %-34s | %8.2f | %6.2f | %8d | %8d |\n", title, s, (b > 0 ? s / b : 0), m, d}'
}

say "making $IMAGES images of $LAYER_MB MB"
for number in $(seq "$IMAGES"); do image "$work/layout" "$number" 1 "$LAYER_MB"; done
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
  stop "$server"
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

import is $(awk "BEGIN {printf \"%.1f\", $(median skopeo 1) / $(median import 1)}") × as fast as skopeo copy --all into docker-registry.
Disk of serve --bundle is what it wrote while it answered a manifest and a layer.
TABLE

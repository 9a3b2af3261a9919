# What the benches of bundles share, to be sourced: an upstream with images to carry, and how a command is measured.
#
# A bench sets SIZE_MB and LAYER_MB, which together say how many images there are.
# shellcheck shell=bash
# shellcheck source=benches/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2154 # the bench sets them
readonly IMAGES=$((SIZE_MB / LAYER_MB)) REPOSITORY=ghcr.io/acme/app

# skopeo_all LAYOUT ADDRESS: copies every image as it is
skopeo_all() {
  local number
  for number in $(seq "$IMAGES"); do
    skopeo copy -q --all --preserve-digests --dest-tls-verify=false "oci:$1:$number" "docker://$2/$REPOSITORY:$number"
  done
}
export -f skopeo_all
export IMAGES REPOSITORY

# Makes images, puts them into a registry, and locks them: $work/layout, $work/lock.json, keys $work/plant.key and
# $work/plant.pub, and the flags FROM for `dray build`.
make_upstream() {
  local number
  say "making $IMAGES images of $LAYER_MB MB"
  for number in $(seq "$IMAGES"); do image "$work/layout" "$number" 1 "$LAYER_MB"; done
  # shellcheck disable=SC2154 # started sets it
  start_registry "$work/upstream" && upstream=$address
  skopeo_all "$work/layout" "$upstream"
  {
    printf 'apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: bench}\nspec:\n  nodes: [linux/amd64]\n  images:\n'
    for number in $(seq "$IMAGES"); do printf -- '    - %s:%s\n' "$REPOSITORY" "$number"; done
  } >"$work/bundle.yaml"
  "$DRAY" keygen -q -o "$work/plant" >/dev/null
  readonly FROM=(--upstream "ghcr.io=http://$upstream/ghcr.io")
  "$DRAY" lock -f "$work/bundle.yaml" -o "$work/lock.json" "${FROM[@]}" >/dev/null
}

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

# row TITLE NAME BASE: one line of the table, with the time as a ratio to BASE's
row() {
  awk -v title="$1" -v s="$(median "$2" 1)" -v m="$(median "$2" 2)" -v d="$(median "$2" 3)" -v b="$(median "$3" 1)" \
    'BEGIN {printf "| %-40s | %8.2f | %6.2f | %8d | %8d |\n", title, s, (b > 0 ? s / b : 0), m, d}'
}

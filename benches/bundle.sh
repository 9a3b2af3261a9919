#!/usr/bin/env bash
# What it costs to carry a bundle: build, import and `serve --bundle`, each against what people do without dray.
#
#   benches/bundle.sh            a bundle of 2 GB, 5 rounds
#   SIZE_MB=500 ROUNDS=3 benches/bundle.sh
#   IMGPKG=/usr/local/bin/imgpkg benches/bundle.sh     with imgpkg beside them (https://github.com/carvel-dev/imgpkg)
#
# Prints a table with medians over the rounds; the candidates take turns within a round, so that a busy machine is as
# unfair to one as to the other, and the ratios hold where the seconds do not. Needs Debian's docker-registry, skopeo,
# time, curl and jq. Works below WORK (default: the build directory), which must have room for about 7 × SIZE_MB.
readonly SIZE_MB=${SIZE_MB:-2000} ROUNDS=${ROUNDS:-5} LAYER_MB=${LAYER_MB:-100}
# shellcheck source=benches/carry.sh
. "$(dirname "${BASH_SOURCE[0]}")/carry.sh"

need docker-registry:docker-registry skopeo:skopeo time:/usr/bin/time curl:curl jq:jq
build_dray

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

# What imgpkg is told to carry: the same images of the same registry.
imgpkg_lock() {
  local number
  printf 'apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n'
  # shellcheck disable=SC2154 # make_upstream sets it
  for number in $(seq "$IMAGES"); do
    jq -r --arg n "$number" --arg r "$upstream/$REPOSITORY" \
      '.manifests[] | select(.annotations[] == $n) | "- image: \($r)@\(.digest)"' "$work/layout/index.json"
  done
}

# Out of the registry into imgpkg's file, and out of that into a registry.
measure_imgpkg() {
  measure imgpkg-save "$work/saved" "$IMGPKG" copy --lock "$work/images.yml" --to-tar "$work/saved/images.tar"
  start_registry "$work/peer"
  measure imgpkg-load "$work/peer" "$IMGPKG" copy --tar "$work/saved/images.tar" --to-repo "$address/app"
  stop "$server"
  rm -rf "$work/peer" "$work/saved"
}

make_upstream
[[ -z ${IMGPKG:-} ]] || imgpkg_lock >"$work/images.yml"

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
  [[ -z ${IMGPKG:-} ]] || measure_imgpkg
done

rows_of_imgpkg() {
  [[ ${IMGPKG:-} ]] || return 0
  row "imgpkg copy --to-tar, from a registry" imgpkg-save cp
  row "imgpkg copy --tar into a registry" imgpkg-load cp
}

size=$(stat -c %s "$work/built/bundle.tar")
cat <<TABLE
$IMAGES images, bundle of $((size / 1000000)) MB ($((size / 1048576)) MiB), medians of $ROUNDS rounds

| what                                     |  seconds |   × cp |  mem MiB | disk MiB |
|------------------------------------------|---------:|-------:|---------:|---------:|
$(row "cp of the bundle" cp cp)
$(row "cp of the bundle, and sync" cpsync cp)
$(row "dray build, from a registry" build cp)
$(row "dray import" import cp)
$(row "skopeo copy --all into a registry" skopeo cp)
$(row "dray serve --bundle: first answer" serve cp)
$(rows_of_imgpkg)

import is $(awk "BEGIN {printf \"%.1f\", $(median skopeo 1) / $(median import 1)}") × as fast as skopeo copy --all into docker-registry.
Disk of serve --bundle is what it wrote while it answered a manifest and a layer.
TABLE

#!/usr/bin/env bash
# What parity costs: `dray build --parity` in volumes and `dray repair` of a lost one, beside par2, which does the same for
# any files.
#
#   benches/parity.sh            a bundle of 1 GB in twelve volumes, 3 rounds
#   SIZE_MB=4000 ROUNDS=1 benches/parity.sh
#
# Prints a table with medians over the rounds; the candidates take turns within a round. Fails when dray needs more memory
# than LIMIT_MIB. Needs Debian's docker-registry, skopeo, par2, time and jq. Works below WORK (default: the build
# directory), which must have room for about 5 × SIZE_MB.
readonly SIZE_MB=${SIZE_MB:-1000} ROUNDS=${ROUNDS:-3} LAYER_MB=${LAYER_MB:-50} SHARE=10
# What any command may need: 64 MiB, and one for each of the six blobs that are fetched at the same time.
readonly LIMIT_MIB=70
readonly VOLUMES=12
# shellcheck source=benches/carry.sh
. "$(dirname "${BASH_SOURCE[0]}")/carry.sh"

need docker-registry:docker-registry skopeo:skopeo par2:par2 time:/usr/bin/time jq:jq
build_dray
make_upstream
rm -r "$work/layout"

readonly BUILD=("$DRAY" build --lock "$work/lock.json" --key "$work/plant.key" "${FROM[@]}" --volume-size "$((SIZE_MB / VOLUMES + 10))MB")
readonly built=$work/built beside=$work/par2

# same: whether every volume is what it was when the sums were written
same() { (cd "$1" && sha256sum --quiet -c "$work/sums"); }

for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  rm -rf "$built" "$beside"
  measure volumes "$beside" "${BUILD[@]}" -o "$beside/plant.tar"
  measure parity "$built" "${BUILD[@]}" -o "$built/plant.tar" --parity "$SHARE%"
  (cd "$beside" && sha256sum plant.*.tar) >"$work/sums"
  same "$built"
  measure cp "$work/copied" sh -c 'cp "$1"/plant.*of*.tar "$2" && sync "$2"/*' - "$beside" "$work/copied"
  rm -rf "$work/copied"
  (cd "$beside" && measure par2create "$beside" par2 create -q -q -r"$SHARE" set.par2 plant.*.tar)

  lost=$(cd "$beside" && printf '%s\n' plant.*.tar | sed -n 2p)
  rm "$built/$lost" "$beside/$lost"
  measure repair "$built" "$DRAY" repair "$built"
  (cd "$beside" && measure par2repair "$beside" par2 repair -q -q set.par2)
  same "$built"
  same "$beside"
  rm "$built"/plant.parity.1of*.tar
  measure recover "$built" "$DRAY" repair "$built"
done

largest=$(cat "$work/results/"{parity,repair,recover} | sort -n -k 2,2 | tail -n 1 | cut -d ' ' -f 2)
cat <<TABLE
$IMAGES images, bundle of $SIZE_MB MB in $(wc -l <"$work/sums") volumes, $SHARE % parity, medians of $ROUNDS rounds

| what                                     |  seconds |   × cp |  mem MiB | disk MiB |
|------------------------------------------|---------:|-------:|---------:|---------:|
$(row "cp of the volumes, and sync" cp cp)
$(row "dray build, in volumes" volumes cp)
$(row "dray build, in volumes, with parity" parity cp)
$(row "par2 create, of those volumes" par2create cp)
$(row "dray repair, a volume is lost" repair cp)
$(row "par2 repair, the same volume" par2repair cp)
$(row "dray repair, a recovery file is lost" recover cp)

dray needed $largest MiB at most.
TABLE
((largest <= LIMIT_MIB)) || fail "that is more than $LIMIT_MIB MiB"

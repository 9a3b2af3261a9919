#!/usr/bin/env bash
# What it costs to serve: dray beside Debian's docker-registry, and beside nginx, which serves the same files and knows
# nothing of registries.
#
#   benches/registry.sh          3 rounds, some five minutes
#   ROUNDS=5 ONLY="blobs manifests" benches/registry.sh     of: blobs, manifests, images, starts, crowd
#
# Prints rows of a Markdown table with medians over the rounds; the candidates take turns within a round. The processor
# time of the server comes first, because it hardly depends on what else the machine does. Wall clock stands beside it as
# a ratio to nginx: the clients need the same processors. Clients check what they get: every status, every byte count, and
# where they pull images, every digest. Works below WORK (default: the build directory), which must have room for 2 GB
# and 2 GB more for each round.
# shellcheck source=benches/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly ROUNDS=${ROUNDS:-3} TAGS=20000 SECONDS_OF_LOAD=${SECONDS_OF_LOAD:-2}
# A blob, and how many of them are read in all by however many clients.
readonly BLOB_MIB=64 BLOBS=32
readonly MANIFEST=application/vnd.oci.image.manifest.v1+json
read -ra PHASES <<<"${ONLY:-blobs manifests images starts crowd}"

need docker-registry:docker-registry nginx-light:nginx skopeo:skopeo wrk:wrk apache2-utils:ab curl:curl jq:jq
build_dray

declare -A address_of process_of

# --- servers ---

start_nginx() {
  local plain=127.0.0.1:$1 tls=127.0.0.1:$2 user=
  [[ $(id -u) != 0 ]] || user='user root;'
  cat >"$work/nginx.conf" <<CONF
$user worker_processes auto; pid $work/nginx.pid; error_log stderr; events { worker_connections 4096; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
  server {
    listen $plain; listen $tls ssl;
    ssl_certificate $work/tls/server.crt; ssl_certificate_key $work/tls/server.key; ssl_protocols TLSv1.2 TLSv1.3;
    root $work/nginx;
    location = /v2/ { return 200; }
    location ~ /manifests/ { default_type $MANIFEST; }
  }
}
CONF
  nginx -c "$work/nginx.conf" -g 'daemon off;' 2>"$work/nginx.log" &
  pids+=("$!")
  process_of[nginx]=$! process_of[nginx-tls]=$! address_of[nginx]=http://$plain address_of[nginx-tls]=https://$tls
  for _ in {1..100}; do
    curl -sf "http://$plain/v2/" -o "$work/out" && return
    sleep 0.02
  done
  fail "nginx does not start: $(<"$work/nginx.log")"
}

# running NAME SCHEME: remembers the server that was just started
running() {
  process_of[$1]=$server address_of[$1]=$2://$address
}

start_all() {
  local pair=("$work/tls/server.crt" "$work/tls/server.key")
  start_dray --store "$work/store" --allow-push --listen 127.0.0.1:0
  running dray http
  start_dray --store "$work/store" --listen 127.0.0.1:0 --tls-cert "${pair[0]}" --tls-key "${pair[1]}"
  running dray-tls https
  start_registry "$work/registry"
  running registry http
  start_registry "$work/registry" 127.0.0.1:0 "${pair[@]}"
  running registry-tls https
  # nginx wants to be told its ports, so it gets some that were just free.
  local ports=()
  for _ in 1 2; do
    start_registry "$work/registry"
    stop "$server"
    ports+=("${address##*:}")
  done
  start_nginx "${ports[@]}"
}

# processes NAME: those of a server
processes() {
  local first=${process_of[$1]}
  printf '%s ' "$first" "$(<"/proc/$first/task/$first/children")"
}

# cpu NAME: the processor time that a server has taken, in hundredths of a second
cpu() {
  local pid fields total=0
  for pid in $(processes "$1"); do
    fields=$(<"/proc/$pid/stat")
    read -ra fields <<<"${fields##*) }"
    total=$((total + fields[11] + fields[12]))
  done
  echo "$total"
}

# memory NAME VmRSS|VmHWM: what a server has in memory, or had at most, in MiB
memory() {
  local pid
  for pid in $(processes "$1"); do cat "/proc/$pid/status"; done |
    awk -v what="$2:" '$1 == what {sum += $2} END {printf "%.1f\n", sum / 1024}'
}

forget_peak() {
  local pid
  for pid in $(processes "$1"); do echo 5 >"/proc/$pid/clear_refs"; done
}

# --- content ---

# write_tags: a repository with $TAGS tags of an image each, for dray and for nginx. docker-registry, which keeps seven files
# and directories for each, goes without.
write_tags() {
  local hex number config layer bytes
  local from=$work/nginx/v2/bench/many/manifests store=$work/store/repositories/bench+many
  config=$(jq -c .config "$work/manifest")
  layer=$(jq -c .layers "$work/manifest")
  mkdir -p "$from" "$store"/{tags,manifests}
  for ((number = 1; number <= TAGS; number++)); do
    printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":%s,"annotations":{"number":"%s"}}' \
      "$MANIFEST" "$config" "$layer" "$number" >"$from/v$number"
  done
  (cd "$from" && sha256sum v*) >"$work/sums"
  cut -c 1-2 "$work/sums" | sort -u | sed "s#^#$work/store/blobs/sha256/#" | xargs mkdir -p
  while read -r hex number; do
    IFS= read -r bytes <"$from/$number" || true
    printf '%s' "$bytes" >"$work/store/blobs/sha256/${hex:0:2}/$hex"
    printf '{"mediaType":"%s","size":%s}' "$MANIFEST" "${#bytes}" >"$store/manifests/sha256-$hex.json"
    printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$MANIFEST" "$hex" "${#bytes}" >"$store/tags/$number.json"
  done <"$work/sums"
}

# push NAME IMAGE: copies an image of the layout to a server
push() {
  skopeo copy -q --preserve-digests --dest-tls-verify=false "oci:$work/layout:$2" "docker://${address_of[$1]#*//}/bench/$2:v1"
}

# publish IMAGE: makes an image of the layout files for nginx
publish() {
  local digest hex to=$work/nginx/v2/bench/$1
  mkdir -p "$to/manifests" "$to/blobs"
  digest=$(jq -r --arg n "$1" '.manifests[] | select(.annotations[] == $n).digest' "$work/layout/index.json")
  cp "$work/layout/blobs/sha256/${digest#*:}" "$work/manifest"
  cp "$work/manifest" "$to/manifests/v1"
  cp "$work/manifest" "$to/manifests/$digest"
  for hex in $(jq -r '.config, .layers[] | .digest | sub("sha256:"; "")' "$work/manifest"); do
    ln "$work/layout/blobs/sha256/$hex" "$to/blobs/sha256:$hex"
  done
}

make_content() {
  say "making images"
  image "$work/layout" one 1 "$BLOB_MIB"
  image "$work/layout" crowd 4 2
  "$DRAY" tls init --san 127.0.0.1 -o "$work/tls" >"$work/out"
  start_all
  local name
  for name in crowd one; do publish "$name"; done
  for name in dray registry; do
    push "$name" one
    push "$name" crowd
  done
  write_tags
}

# --- measurements ---

# timed RESULT NAME COMMAND…: notes seconds and the server's processor time, in hundredths, of a command
timed() {
  local result=$1 name=$2 began ended before
  shift 2
  before=$(cpu "$name")
  began=${EPOCHREALTIME/[.,]/}
  "$@"
  ended=${EPOCHREALTIME/[.,]/}
  note "$result.$name" "$((ended - began))" "$(($(cpu "$name") - before))"
}

# readers NAME CLIENTS: that many clients read $BLOBS blobs between them, each over one connection
readers() {
  local each=$((BLOBS / $2)) url digest clients=() pid
  digest=$(jq -r '.layers[0].digest' "$work/nginx/v2/bench/one/manifests/v1")
  url=${address_of[$1]}/v2/bench/one/blobs/$digest
  for _ in $(seq "$2"); do
    # The cipher that Go's clients choose, which is what containerd and podman are.
    curl -sS --cacert "$work/tls/ca.crt" --tls13-ciphers TLS_AES_128_GCM_SHA256 \
      -w '%{http_code} %{size_download}\n' -o /dev/null "$url#[1-$each]" >>"$work/read" &
    clients+=("$!")
  done
  for pid in "${clients[@]}"; do wait "$pid"; done
}

measure_blobs() {
  local clients name bytes whole
  bytes=$(jq '.layers[0].size' "$work/nginx/v2/bench/one/manifests/v1")
  for clients in 1 8 32; do
    for name in dray registry nginx dray-tls registry-tls nginx-tls; do
      : >"$work/read"
      forget_peak "$name"
      timed "blob$clients" "$name" readers "$name" "$clients"
      note "peak$clients.$name" "$(memory "$name" VmHWM)"
      whole=$(grep -cx "200 $bytes" "$work/read" || true)
      ((whole == BLOBS)) || fail "$name sent $whole of $BLOBS blobs whole: $(sort "$work/read" | uniq -c)"
    done
  done
}

# get NAME IMAGE TAGS: GETs of manifests by tags v1 to v$TAGS in no order
get() {
  cat >"$work/get.lua" <<LUA
local number = 0
request = function()
  number = (number + 7919) % $3
  return wrk.format("GET", "/v2/bench/$2/manifests/v" .. number + 1, {["Accept"] = "$MANIFEST"})
end
LUA
  wrk -t 1 -c 16 -d "$SECONDS_OF_LOAD" --latency -s "$work/get.lua" "${address_of[$1]}" >"$work/wrk"
  ! grep -E 'Non-2xx|Socket errors' "$work/wrk" >&2 || fail "$1 did not answer everything"
  awk '/requests in/ {requests = $1}
    /^ +99%/ {p99 = $2; if (p99 ~ /us$/) p99 /= 1000; else if (p99 ~ /ms$/) p99 += 0; else p99 *= 1000}
    END {printf "%d %.3f\n", requests, p99}' "$work/wrk" >"$work/load"
}

# head_of NAME IMAGE TAG: HEADs of a manifest by a tag. To ab a time means 50,000 requests at most, unless -n comes after it.
head_of() {
  ab -q -k -i -c 16 -t "$SECONDS_OF_LOAD" -n 10000000 -e "$work/percentiles" -H "Accept: $MANIFEST" \
    "${address_of[$1]}/v2/bench/$2/manifests/$3" >"$work/ab"
  ! grep -E 'Non-2xx|Failed requests: +[1-9]' "$work/ab" >&2 || fail "$1 did not answer everything"
  awk 'FNR == NR {split($0, part, ","); if (part[1] == 99) p99 = part[2]; next}
    /^Complete requests/ {requests = $3} END {printf "%d %.3f\n", requests, p99}' "$work/percentiles" "$work/ab" >"$work/load"
}

measure_manifests() {
  local name image load
  for image in one many; do
    for load in get head; do
      for name in dray registry nginx; do
        local before requests p99
        [[ $image-$name != many-registry ]] || continue
        before=$(cpu "$name")
        case $load in
          get) get "$name" "$image" "$([[ $image == one ]] && echo 1 || echo "$TAGS")" ;;
          head) head_of "$name" "$image" "v$([[ $image == one ]] && echo 1 || echo 12345)" ;;
        esac
        read -r requests p99 <"$work/load"
        note "$load-$image.$name" "$(((($(cpu "$name") - before) * 10000) / requests))" "$p99" "$requests"
      done
    done
  done
}

# An image that no server has any part of, each round another.
measure_images() {
  local name five=five$round
  image "$work/layout" "$five" 5 100
  publish "$five"
  for name in dray registry; do timed push "$name" push "$name" "$five"; done
  for name in dray registry nginx; do
    timed pull "$name" skopeo copy -q --src-tls-verify=false "docker://${address_of[$name]#*//}/bench/$five:v1" "dir:$work/pulled"
    rm -rf "$work/pulled"
  done
}

# answers ADDRESS: whether a server answers
answers() {
  local line
  exec 3<>"/dev/tcp/${1/://}" || return 1
  printf 'GET /v2/ HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n' >&3
  read -r line <&3
  exec 3>&-
  [[ $line == *' 200 '* ]]
} 2>/dev/null

# start_on NAME LISTEN: becomes a server
start_on() {
  case $1 in
    dray) exec "$DRAY" serve --store "$work/store" --listen "$2" ;;
    registry) exec docker-registry serve "$(registry_settings "$work/registry" "$2")" ;;
  esac >"$work/out" 2>&1
}

# How long from its start until a server answers, dray over a store of $TAGS blobs; and its memory then. It is started on a
# port that was just free, so that nothing has to be read from a log.
measure_starts() {
  local name began
  for name in dray registry; do
    start_registry "$work/registry"
    stop "$server"
    began=${EPOCHREALTIME/[.,]/}
    start_on "$name" "$address" &
    server=$!
    pids+=("$server")
    until answers "$address"; do :; done
    note "start.$name" "$((${EPOCHREALTIME/[.,]/} - began))"
    sleep 0.5
    running "$name-start" http
    note "idle.$name" "$(memory "$name-start" VmRSS)"
    stop "$server"
  done
  note idle.nginx "$(memory nginx VmRSS)"
}

# pull_image BASE DIRECTORY: as containerd pulls: resolve the tag, get the manifest, then config and layers three at a
# time; checks every digest. Prints what went wrong.
pull_image() {
  local base=$1 to=$2 digest hex blobs=()
  mkdir -p "$to" && cd "$to" || return
  digest=$(curl -sSfI -H "Accept: $MANIFEST" "$base/manifests/v1" | tr -d '\r' | sed -n 's/^docker-content-digest: sha256://Ip')
  curl -sSf -H "Accept: $MANIFEST" "$base/manifests/sha256:$digest" -o "$digest" || echo "no manifest"
  for hex in $(jq -r '.config, .layers[] | .digest | sub("sha256:"; "")' "$digest"); do
    blobs+=(-o "$hex" "$base/blobs/sha256:$hex")
  done
  curl -sSf -Z --parallel-max 3 --no-progress-meter "${blobs[@]}" || echo "no blob"
  for hex in *; do echo "$hex  $hex"; done | sha256sum -c --quiet || echo "wrong bytes"
  rm -r "$to"
}
export -f pull_image
export MANIFEST

# All nodes restart at once: 200 of them pull one image.
crowd() {
  seq 200 | xargs -P 200 -I N bash -c 'pull_image "$@"' - "${address_of[$1]}/v2/bench/crowd" "$work/crowd/N" >"$work/wrong" 2>&1
}

measure_crowd() {
  local name
  for name in dray registry; do
    forget_peak "$name"
    timed crowd "$name" crowd "$name"
    note crowd-memory."$name" "$(memory "$name" VmHWM)"
    [[ ! -s $work/wrong ]] || fail "pulls from $name: $(sort "$work/wrong" | uniq -c | head)"
  done
}

# --- the table ---

# row WHAT UNIT DRAY REGISTRY NGINX
row() { printf '| %s | %s | %s | %s | %s |\n' "$@"; }

# each RESULT COLUMN FORMAT FACTOR [SUFFIX]: the medians of dray, registry and nginx, as arguments to row
each() {
  local name
  cells=()
  for name in dray registry nginx; do
    if [[ -f $work/results/$1.$name${5:-} ]]; then
      cells+=("$(awk -v v="$(median "$1.$name${5:-}" "$2")" -v f="$4" "BEGIN {printf \"$3\", v * f}")")
    else
      cells+=(–)
    fi
  done
}

# speed RESULT [SUFFIX]: how fast each is as a multiple of nginx
speed() {
  local name nginx
  cells=()
  nginx=$(median "$1.nginx${2:-}")
  for name in dray registry nginx; do
    cells+=("$(awk -v t="$(median "$1.$name${2:-}")" -v n="$nginx" 'BEGIN {printf "%.2f ×", n / t}')")
  done
}

table_of_blobs() {
  local clients suffix scheme gib
  gib=$(awk -v b="$BLOBS" -v m="$BLOB_MIB" 'BEGIN {print 1024 / b / m / 100}')
  for suffix in '' -tls; do
    scheme=$([[ $suffix ]] && echo HTTPS || echo HTTP)
    for clients in 1 8 32; do
      each "blob$clients" 2 %.2f "$gib" "$suffix"
      row "blobs over $scheme, $clients at a time" "CPU s/GiB" "${cells[@]}"
      speed "blob$clients" "$suffix"
      row "" "speed" "${cells[@]}"
    done
    each peak32 1 %.0f 1 "$suffix"
    row "peak memory then" MiB "${cells[@]}"
  done
}

table_of_manifests() {
  local load image
  for load in get head; do
    for image in one many; do
      each "$load-$image" 1 %.0f 1
      row "${load^^} a manifest by tag, $([[ $image == one ]] && echo 1 tag || echo "$TAGS tags")" "CPU µs" "${cells[@]}"
      each "$load-$image" 3 %.0f "$(awk -v s="$SECONDS_OF_LOAD" 'BEGIN {print 1 / s}')"
      row "" "per second" "${cells[@]}"
      each "$load-$image" 2 %.1f 1
      row "" "p99 ms" "${cells[@]}"
    done
  done
}

table_of_images() {
  local what
  for what in push pull; do
    each "$what" 2 %.2f 0.01
    row "$what 500 MiB with skopeo" "CPU s" "${cells[@]}"
    each "$what" 1 %.1f 0.000001
    row "" s "${cells[@]}"
  done
}

table_of_starts() {
  each start 1 %.0f 0.001
  row "start to first answer, $TAGS blobs (docker-registry: a few)" ms "${cells[@]}"
  each idle 1 %.0f 1
  row "idle memory" MiB "${cells[@]}"
}

table_of_crowd() {
  each crowd 2 %.2f 0.01
  row "200 pulls of an image at once" "CPU s" "${cells[@]}"
  each crowd-memory 1 %.0f 1
  row "peak memory then" MiB "${cells[@]}"
}

make_content
for round in $(seq "$ROUNDS"); do
  for phase in "${PHASES[@]}"; do
    say "round $round of $ROUNDS: $phase"
    "measure_$phase"
  done
done
printf '| what | of the server | dray | docker-registry | nginx |\n|---|---|---:|---:|---:|\n'
for phase in "${PHASES[@]}"; do "table_of_$phase"; done

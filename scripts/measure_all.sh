#!/usr/bin/env bash
# Measure the figures of docs/results on a machine with a GPU. Each part writes a log to OUT, and its captures as one archive.
#
# usage: measure_all.sh OUT [PART...]
#   parts: tests samples router attention session sanitizer verdicts, and with two GPUs or more: ranks hosts (default: all)
#
# nsys, ncu and nvcc should be on PATH. A part that fails does not stop the next one; then the exit status is 1.
set -uo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/{/^#/p}' "$0"; exit ;; esac
out=${1:?usage: measure_all.sh OUT [PART...]}
shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(tests samples router attention session sanitizer verdicts ranks hosts)
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
failed=0

count_gpus() { "$python" -c "import torch; print(torch.cuda.device_count())"; }

heading() { echo "== $(date +%T) $*"; }

run_tests() { (cd "$here" && timeout 560 "$python" -P -m pytest -p no:cacheprovider -m gpu -q --durations=8 tests); }

run_samples() {
  local workload
  for workload in router decode_attention decode_kernel mla_decode; do
    heading "capture $workload"
    (time timeout 200 moeprof capture "$workload" -o "$work/captures/$workload") 2>&1 || failed=1
  done
  tar cJf "$out/captures.tar.xz" -C "$work" captures
}

run_router() {
  cd "$here/scripts"
  local only=fused,bound,grouped
  timeout 150 "$python" benchmark_router.py qwen3-16k:load=balanced --rounds 7 || failed=1
  timeout 100 "$python" benchmark_router.py qwen3-16k qwen3-16k:load=zipf qwen3-16k:load=balanced,tokens=32768 --rounds 7 --only $only || failed=1
  timeout 120 "$python" benchmark_router.py mixtral:load=balanced --rounds 7 || failed=1
  timeout 90 "$python" benchmark_router.py qwen3-decode mixtral-decode seed:tokens=256 --rounds 7 || failed=1
}

run_attention() {
  cd "$here/scripts"
  timeout 560 "$python" benchmark_attention.py decode_attention/llama8b decode_attention/llama70b decode_attention/qwen3 decode_attention/long \
    decode_attention/one decode_attention/ragged mla_decode mla_decode/heads128 mla_decode/ragged decode_kernel --rounds 7
}

run_session() {
  local sources
  sources=$("$python" -c "from moeprof import resources; print(resources.folder('cuda').parent)")
  cd "$sources" || return 1
  git rev-parse -q --git-dir >/dev/null 2>&1 || { git init -q && git add cuda && git -c user.name=draft -c user.email=draft@localhost commit -qm "as installed"; }
  timeout 500 "$python" "$here/scripts/first_investigation.py" --session "$work/session" || return 1
  tar cJf "$out/session.tar.xz" -C "$work" session
}

run_sanitizer() {
  local tool name checker
  checker=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
  [ -n "$checker" ] || { echo "compute-sanitizer is missing"; return 1; }
  for name in 0 1 2; do
    heading "racecheck of a hand-over by named barriers, $name"
    nvcc -arch=native -lineinfo -DHANDOVER=$name -o "$work/handover" "$here/scripts/racecheck_barriers.cu" && "$checker" --tool racecheck "$work/handover" 2>&1 | tail -n 1
  done
  for tool in memcheck racecheck; do
    for name in baseline vectorized tma tma_pipelined; do
      heading "$tool $name"
      timeout 120 "$checker" --tool $tool "$python" -P -m moeprof.workloads.decode.decode_kernel --variant $name --preset tiny --iterations 1 --seconds 0.01 2>&1 | tail -n 4
    done
    heading "$tool mla_decode in CUDA"  # racecheck does not follow bar.arrive: docs/results
    MOEPROF_NVCC_FLAGS=$([ $tool = racecheck ] && echo -DMOEPROF_MEET) timeout 120 "$checker" --tool $tool "$python" -P - <<'EOF' 2>&1 | tail -n 4
from moeprof.workload.find import load
from moeprof.workloads.decode import mla
from moeprof.workloads.decode.mla_split_kv import latent, latent_configs
params = load("mla_decode").params("default", {"heads": "128", "lengths": "500,64,1,129"})
q, c, lengths, out = given = mla.latents(params, "cuda")
expected = mla.reference(params, given, mla.scale(params))
for config in latent_configs(q, out):
    if config["in"] == "CUDA C++":
        latent(config, q, c, lengths, out.fill_(float("nan")), mla.scale(params))[0]()
        print("whole units:", config["whole"], "error:", float((out.float() - expected).norm() / expected.norm()))
EOF
    heading "$tool decode_attention cuda"
    timeout 120 "$checker" --tool $tool "$python" -P -m moeprof.workloads.decode.decode_attention --variant cuda --preset llama8b --set batch=2 --set length=500 \
      --iterations 1 --seconds 0.01 2>&1 | tail -n 4
  done
}

# Two captures that meet as if on two hosts, a GPU each: their clocks are one, so that the offset must lie within its uncertainty.
run_hosts() {
  local gpus rank
  gpus=$(count_gpus)
  [ "$gpus" -gt 1 ] || { echo "SKIPPED: one GPU"; return 0; }
  export MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MOEPROF_TOKEN=$RANDOM$RANDOM$RANDOM
  cd "$work" || return 1
  for rank in 0 1; do
    RANK=$rank CUDA_VISIBLE_DEVICES=$rank timeout 200 moeprof capture expert_parallel --variants baseline,overlap --set tokens=16384 --rounds 8 \
      --tools nsys -o hosts >"host$rank.log" 2>&1 &
  done
  wait
  tail -n 4 host0.log host1.log
  "$python" - <<'EOF' || failed=1
import json
for variant in json.load(open("hosts/manifest.json"))["variants"]:
    for rank in variant["ranks"]:
        print(variant["name"], {key: rank[key] for key in ("rank", "host", "clock_offset_ns", "clock_uncertainty_ns", "clock_drift_ns")})
        assert rank["host"] == 0 or abs(rank["clock_offset_ns"]) <= rank["clock_uncertainty_ns"], "the offset is not 0"
EOF
  moeprof ranks hosts || failed=1
  unset MASTER_ADDR MASTER_PORT WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE
  tar cJf "$out/hosts.tar.xz" -C "$work" hosts host0.log host1.log
}

# Every workload's optimized variant twice, and with a planted wait of 5 %: SAME and SLOWER are expected, exits 0 and 3.
run_verdicts() {
  cd "$work" || return 1
  local workload missed=0
  for workload in kv_transfer router decode_attention decode_kernel mla_decode; do
    heading "planted: $workload"
    (time PLANTED=$workload timeout 110 moeprof capture "$here/scripts/planted_slowdown.py" --tools none -o "$work/planted/$workload") 2>&1 | tail -n 4
    moeprof report --diff "$work/planted/$workload" -o "$work/planted/$workload.html" | head -n 12
    moeprof check "$work/planted/$workload" --variant again --fail-on 'step_time>2%' || { missed=1; echo "exit $?, 0 was expected"; }
    moeprof check "$work/planted/$workload" --variant slower --fail-on 'step_time>2%'
    [ $? -eq 3 ] || { missed=1; echo "3 was expected"; }
  done
  return $missed
}

# expert_parallel on all GPUs of this host, its ranks side by side, and what nsys says of the same report.
run_ranks() {
  local gpus variant
  gpus=$(count_gpus)
  [ "$gpus" -gt 1 ] || { echo "SKIPPED: one GPU"; return 0; }
  cd "$here/scripts" || return 1
  timeout 200 "$python" -m torch.distributed.run --nproc-per-node "$gpus" benchmark_expert_parallel.py default default:load=zipf decode --rounds 5 || failed=1
  (time timeout 200 moeprof capture expert_parallel --keep-raw -o "$work/ranks") 2>&1 | tail -n 12
  moeprof report --diff "$work/ranks" -o "$out/expert_parallel.html"
  moeprof ranks "$work/ranks" -o "$out/ranks.html" || failed=1
  for variant in overlap graph; do
    heading "nsys of $variant"
    nsys recipe nccl_gpu_overlap_trace --input "$work/ranks/$variant/trace.nsys-rep" --output "$work/recipe-$variant" >/dev/null 2>&1 || failed=1
    "$python" compare_overlap_with_nsys.py "$work/ranks/$variant/trace.sqlite" "$work/recipe-$variant/rank_trace.parquet" || failed=1
  done
  tar cJf "$out/ranks.tar.xz" --exclude=*.nsys-rep -C "$work" .
}

for part in "${parts[@]}"; do
  heading "$part"
  ("run_$part"; code=$?; exit $((code || failed))) 2>&1 | tee "$out/$part.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
done
heading "done"
exit $failed

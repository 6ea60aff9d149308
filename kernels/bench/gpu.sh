#!/usr/bin/env bash
# Measure everything on a GPU machine without network, in runs of under ten minutes.
#
#   kernels/bench/gpu.sh OUT_DIR [WHEELS_DIR]
#
# OUT_DIR gets results.json (rewritten after every case), log.txt, table.md and the pictures.
# WHEELS_DIR holds wheels of further peers, and *.tar.xz of packages too large for a wheel, unpacked
# beside them; both go into a private folder. flash-attn-4 is measured in a run of its own.
# Environment: PYTHON (python3), LIMIT (540 seconds), BENCH_ARGS (more arguments, such as --smoke),
# BENCH_COMMIT (the commit, where the files came without git), OPS (some ops only), APPEND=1 (keep
# what OUT_DIR holds). No case begins in the last third of the time, so run it once for attention
# and once, or twice, for the rest:
#
#   OPS="attention intervals" kernels/bench/gpu.sh out wheels
#   OPS="linear_cross_entropy linear_logprobs contrastive_loss sigmoid_loss" APPEND=1 ...
#   OPS="layer_norm rms_norm bias_gelu swiglu rotary augment_images embedding adamw" APPEND=1 ...
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 OUT_DIR [WHEELS_DIR]" >&2
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
wheels=""
if [ -n "${2:-}" ]; then
  wheels=$(cd "$2" && pwd) || exit 2
fi
python=${PYTHON:-python3}
limit=${LIMIT:-540}
begin=$SECONDS
read -ra more <<<"${BENCH_ARGS:-}"
read -ra ops <<<"${OPS:-}"
[ ${#ops[@]} -eq 0 ] || ops=(--op "${ops[@]}")
first=()
[ -z "${APPEND:-}" ] || first=(--append)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONUNBUFFERED=1

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "$wheels" ]; then
  shopt -s nullglob
  found=("$wheels"/*.whl)
  if [ ${#found[@]} -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
      --find-links "$wheels" --target "$site" "${found[@]}"
  fi
  for archive in "$wheels"/*.tar.xz; do
    tar -xJf "$archive" -C "$site"
  done
  shopt -u nullglob
  # pip --target ignores .pth files, and cutlass-dsl has its modules behind one.
  export PYTHONPATH="$site:$site/nvidia_cutlass_dsl/dsl_packages${PYTHONPATH:+:$PYTHONPATH}"
fi

bench() { # SECONDS ARGUMENTS...: no case begins in the last third of the time
  local seconds=$1
  shift
  timeout --signal=INT --kill-after=10 "$seconds" \
    "$python" -m kernels.bench --out "$out/results.json" --limit $((seconds * 2 / 3)) \
    "${ops[@]}" "$@" "${more[@]}" 2>&1 | tee -a "$out/log.txt"
}

[ -n "${APPEND:-}" ] || rm -f "$out/results.json" "$out/log.txt"
status=0
left=$((limit - (SECONDS - begin)))
if [[ " ${OPS:-attention} " == *" attention "* ]] &&
  "$python" -c 'import flash_attn.cute' 2>/dev/null; then
  bench $((left * 3 / 5)) --peers all,-flash_attn_4 "${first[@]}" || status=$?
  left=$((limit - (SECONDS - begin)))
  bench "$left" --op attention --peers triton,flash_attn_4,sdpa_cudnn,varlen --append || status=$?
else
  bench "$left" --peers all "${first[@]}" || status=$?
fi
if [ -f "$out/results.json" ]; then
  "$python" -m kernels.bench --table "$out/results.json" --plot "$out" "${more[@]}" \
    >"$out/table.md" || echo "no pictures" >&2
  cat "$out/table.md"
fi
exit "$status"

#!/usr/bin/env bash
# What one GPU gives, in nine minutes at most.
#
#     benchmarks/gpu.sh OUT PREPARED      PREPARED: some books, as `calmkit prepare` leaves them
#     benchmarks/gpu.sh --rehearse OUT    the same parts on the CPU, at sizes that take a moment
#
# Every part writes its files to OUT as soon as it is done, and a line to OUT/parts.jsonl: its exit
# code, its seconds, the device and versions. A part that fails or takes too long does not stop the
# others; the last ones get what time is left. The exit code is 1 if any part failed.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}

rehearse=false
if [ "${1:-}" = --rehearse ]; then rehearse=true; shift; fi
if $rehearse; then needed=1; else needed=2; fi
if [ $# -ne $needed ]; then sed -n '2,6p' "$root/benchmarks/gpu.sh" >&2; exit 2; fi
mkdir -p "$1" && out=$(realpath "$1") || exit 2
data=
if ! $rehearse; then
  data=$(realpath "$2")
  if [ ! -f "$data/manifest.json" ]; then
    echo "$2 must be a folder written by calmkit prepare; it has no manifest.json" >&2; exit 2
  fi
fi
cd "$root" || exit 2
end=$((SECONDS + ${SECONDS_LEFT:-525}))
failed=0

# part NAME SECONDS COMMAND...: run a command for at most so many seconds, and note how it went.
part() {
  local name=$1 limit=$2 began=$SECONDS code=124
  shift 2
  [ "$limit" -le $((end - SECONDS)) ] || limit=$((end - SECONDS))
  if [ "$limit" -gt 0 ]; then
    timeout --signal=INT --kill-after=10 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
  fi
  printf '{"part": "%s", "exit": %d, "seconds": %d, "environment": %s}\n' \
    "$name" "$code" $((SECONDS - began)) "$environment" | tee -a "$out/parts.jsonl"
  [ "$code" -eq 0 ] || failed=1
}

if $rehearse; then
  device=cpu
  export CUDA_VISIBLE_DEVICES=
  tests=(-m "not gpu" tests/attention/test_gpu_marker.py)
  packed=(--rows 2 --length 64 --heads 2 --head-dim 8 --rounds 1 --repeats 1 --compiler eager)
  small=(--vocab_size 300 --hidden_size 16 --latent_size 8 --positions 64 --autoencoder.width 16
    --backbone.depth 1 --backbone.heads 2 --backbone.ff_size 32 --head.width 16 --head.depth 1
    --evaluation.min_context 2)
  step=(--warm 1 --measured 1 "${small[@]}" --compile false --training.batch_size 4
    --training.micro_batch 2)
  generation=(--hidden 16 --depth 1 --heads 2 --head-width 16 --head-depth 1 --latent 8 --chunk 2
    --width 16 --vocab 50 --large-vocab 60 --rows 2 --candidates 4 --batches 1 --prompt-chunks 2
    --new-chunks 2 --selection-rows 2 --rounds 1 --numbers 4 8)
  tokens=(--chunk_size 1)
  books=("${small[@]}" --training.steps 4 --training.warmup_steps 1 --training.batch_size 4
    --autoencoder_training.steps 4 --autoencoder_training.warmup_steps 1 --evaluation.rows 4
    --evaluation.draws 2 --evaluation.bootstrap 20 --validation_rows 2 --sample_tokens 4)
else
  device=cuda
  export CALMKIT_REQUIRE_GPU=1
  tests=(-m gpu tests/attention tests/sampling)
  packed=()
  # As many tokens as in calm_m_h200.json, which the vocabulary of books decides there.
  step=(--vocab_size 4096 --training.batch_size 32 --training.micro_batch 16)
  # CALM-M, with as few rows as the published procedure can hold.
  generation=(--hidden 1024 --depth 16 --heads 16 --head-width 1024 --head-depth 4 --latent 128
    --vocab 128257 --large-vocab 128257 --rows 4 --candidates 200 --rounds 2)
  tokens=(--chunk_size 1 --positions 256 --evaluation.min_context 64)
  books=(--config books --config books-gpu --autoencoder_training.steps 400
    --autoencoder_training.warmup_steps 40 --training.steps "${STEPS:-600}"
    --training.warmup_steps 60 --evaluation.rows 64)
fi

environment=$("$python" - <<'END'
import importlib.metadata as metadata, json, platform, torch

names = ("torch", "xformers", "lightning-fabric", "numpy")
found = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
print(json.dumps({"device": name, **{n: found.get(n) for n in names}}))
END
) || { echo "$python must have calmkit's libraries, such as torch" >&2; exit 2; }

# By worth, since the last ones may find no time left.
# 1. The kernels of the attention are right.
part gpu_tests 90 "$python" -m pytest -q -p no:cacheprovider "${tests[@]}"

# 2. The step of CALM-M, with packed documents and without, and the kernels that take its time.
part calm_m 130 "$python" benchmarks/calm_m_step.py --device $device "${step[@]}" \
  --json "$out/calm_m.json"

# 3. Generation at T = 0.5, against the published procedure.
part generation 100 "$python" benchmarks/generation.py --device $device "${generation[@]}" \
  --json "$out/generation.json"

# 4. What other kernels would make of packed documents.
part packed_attention 90 "$python" benchmarks/packed_attention.py --device $device "${packed[@]}" \
  --json "$out/packed_attention.json"

# 5. As long as time is left: models on books, one after the other, and a text by the best.
train() {
  local name=$1
  shift
  part "books_$name" 300 "$python" -m calmkit train "${books[@]}" "$@" ${data:+--data "$data"} \
    --devices 1 --output "$out/books_$name"
}
train tied "${tokens[@]}" --latent_size 32 --head TiedMixtureHead --head.components 4096
part books_text 30 "$python" -m calmkit generate --checkpoint "$out/books_tied" \
  --temperature 0.5 --candidates 200 --samples 4
train softmax "${tokens[@]}" --model token_lm
for head in Energy Flow Gaussian; do train "${head,,}" --head "${head}Head"; done
exit $failed

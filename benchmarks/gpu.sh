#!/usr/bin/env bash
# Everything there is to measure on a GPU: first recipes at full speed (pets and birds among them), in under nine
# minutes, then the transfer table, which takes longer and can be stopped and continued. FASTCLS_IMAGES is the folder
# that ../shared/data's archives are unpacked into, WEIGHTS the folder of its two weights files; AIRBENCH may name
# airbench's script.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
timeout 180 python -m benchmarks.gpu --save
python -m benchmarks.step --rounds 5 --save
python -m benchmarks.loading --rounds 3 --save
timeout 240 python -m benchmarks.airbench --rounds 5 --script "${AIRBENCH:-}" --save
transfer=(python -m benchmarks.transfer --weights "${WEIGHTS:-../shared/data}" --out transfer-gpu.jsonl)
"${transfer[@]}" --nice 0
"${transfer[@]}" --table --plot transfer-gpu.png
scripts/performance

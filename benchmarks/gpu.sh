#!/usr/bin/env bash
# Everything there is to measure on a GPU, in one go of under nine minutes. FASTCLS_IMAGES is the folder that holds
# cifar10/, imagenette2-160/ and oxford-iiit-pet-sample/; AIRBENCH may name airbench's script.
set -uo pipefail
cd "$(dirname "$0")/.."
python -m benchmarks.step --rounds 5 --save
python -m benchmarks.loading --rounds 3 --save
timeout 150 python -m benchmarks.gpu --save
timeout 240 python -m benchmarks.airbench --rounds 5 --script "${AIRBENCH:-}" --save
scripts/performance

#!/usr/bin/env bash
# CROP's PLC stage from nothing to an exported checkpoint: demo data, two fine-tunings, a table, an export, an answer.
# 8 to 11 minutes on two cores after the installation. Everything it makes lies in runs/quickstart.
set -euo pipefail
# shellcheck disable=SC2034  # read by environment.sh
extras=(demo)
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export HF_HUB_OFFLINE=1
run=runs/quickstart
rm -rf "$run"

step() { printf '\n== %s (%d s since the start)\n' "$1" "$SECONDS"; }

step "Demo data: scenes of handwritten digits, questions and their regions"
"$python" -m data_prep.demo "$run/data"

step "Fine-tuning: region-ratio compressor, projector and LoRA"
./launch/train.sh configs/plc/quickstart.yaml

step "Fine-tuning the same with uniform pooling, to compare"
# 150 steps: a whole training of 600 gains it half a point more, and takes three minutes
./launch/train.sh configs/plc/quickstart.yaml compressor_type=uniform output_dir="$run/uniform" max_steps=150

step "Evaluation on held-out questions"
"$python" -m train.evaluate configs/evaluate/quickstart.yaml

step "Export, checked by a process that does not know this project"
"$python" -m train.export "$run/plc/final" "$run/export" evaluation="$run/evaluation.json"

step "One answer from the export"
"$python" -m train.answer "$run/export" "$run/regions.png" configs/answer/quickstart.yaml

cat <<END

Done after $SECONDS s. The table above is $run/evaluation.md (and evaluation.json), the picture of region and kept tokens
$run/regions.png, the model $run/export, the curves: $(dirname "$python")/tensorboard --logdir $run
END

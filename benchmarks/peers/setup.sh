#!/usr/bin/env bash
# Makes the environment of the peers: bash benchmarks/peers/setup.sh FOLDER [PYTHON]
set -euo pipefail

folder=${1:?the folder of the new environment}
constraints=$(dirname "$0")/../../constraints.txt

"${2:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --constraint "$constraints" \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 textbrewer==0.2.1.post1

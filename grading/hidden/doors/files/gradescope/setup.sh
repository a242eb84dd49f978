#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image: a virtual environment with what grading needs.
# HW3_AUTOGRADER stands for /autograder in tests.
set -euo pipefail
umask 022
root=${HW3_AUTOGRADER:-/autograder}
cd "$root/source"

apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv libseccomp2
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "setup.sh: Python 3.10 or later is needed: choose the base image Ubuntu 22.04 or a later one" >&2
  exit 1
}

# torch and torchvision must come from one index: a CPU-only torch beside PyPI's torchvision fails at import. So the
# second try begins with a fresh environment. The CPU's index has wheels of 200 MB where PyPI's bring gigabytes of CUDA.
install() {
  python3 -m venv --clear "$root/venv"
  "$root/venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check "$@" -r requirements-torch.txt
}
install --retries 2 --index-url https://download.pytorch.org/whl/cpu || {
  echo "setup.sh: PyTorch's index for CPUs cannot be used; torch and torchvision come from PyPI" >&2
  install
}
"$root/venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check \
  -r requirements.txt -r requirements-grading.txt

# An image that cannot grade must not be built.
"$root/venv/bin/python" -c 'import torch, torchvision, grading.hidden.doors.autograder'
chmod -R go= "$root/source"

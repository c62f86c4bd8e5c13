#!/usr/bin/env bash
# Writes requirements/*.txt: exact versions with hashes, for Linux and Python 3.11 and newer, without any address
# to download from. Each file is complete in itself; all of them agree with base.txt. Usage: lock.sh UV [OPTIONS FOR UV]
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=$1
shift
compile() {
    output=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --output-file "requirements/$output.txt" "$@"
    sed -i "1i # Made by \`make lock\` from pyproject.toml. Do not edit." "requirements/$output.txt"
    if grep -nE '://|^--(index|extra-index|find-links)' "requirements/$output.txt"; then
        echo "requirements/$output.txt names a download address; it must not" >&2
        exit 1
    fi
}
compile base pyproject.toml requirements/build.in "$@"
compile s3 pyproject.toml requirements/build.in --extra s3 -c requirements/base.txt "$@"
compile dev pyproject.toml requirements/build.in --extra dev --extra s3 -c requirements/s3.txt "$@"
compile bench pyproject.toml requirements/build.in --extra bench -c requirements/base.txt "$@"
compile torch pyproject.toml requirements/build.in --extra dev --extra s3 --extra torch -c requirements/dev.txt "$@"
# The S3 server of the tests needs an older python-dateutil than the Kubernetes client does.
compile s3-server requirements/s3-server.in requirements/build.in "$@"

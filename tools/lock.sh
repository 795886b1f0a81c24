#!/bin/sh
# Write requirements.lock and requirements-test.lock anew from pyproject.toml, for Python 3.11 and later, with hashes.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install -q uv
for extra in "" test; do
    "$tools/venv/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links ${extra:+--extra "$extra"} pyproject.toml -o "requirements${extra:+-$extra}.lock"
done

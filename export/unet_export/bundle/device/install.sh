#!/bin/sh
# Finds the Python that the wheels are for; install.py beside this file does the work.
here=$(dirname -- "$0")
python=$(command -v python@PYTHON@ || command -v python3) || { echo "error: no Python here, expected @PYTHON@" >&2; exit 1; }
exec "$python" "$here/install.py" "$@"

#!/usr/bin/env bash
# Makes .venv from the hash-locked requirements, once; later calls take a moment.
#
#   scripts/environment.sh run      what the product needs
#   scripts/environment.sh test     and what the tests need
#
# Needs Python 3.11 or later (PYTHON names one); no root. Where Debian's python3-venv is missing, pip comes from the
# distribution's package mirror. Everything is written below the clone.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
  run) lock=requirements.txt ;;
  test) lock=requirements-dev.txt ;;
  *) echo "usage: $0 run|test" >&2; exit 2 ;;
esac
venv=$PWD/.venv
python=$venv/bin/python
stamp=$venv/.installed-$lock

main() {
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(what_is_in "$lock")" ] && "$python" -c '' 2>/dev/null; then
    return
  fi
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    make_environment
  fi
  install
  what_is_in "$lock" >"$stamp"
  # What the tests need includes what the product needs, in the same versions.
  [ "$lock" = requirements.txt ] || what_is_in requirements.txt >"$venv/.installed-requirements.txt"
}

# The folder is part of it, since a moved environment does not work.
what_is_in() {
  echo "$venv $(cksum <"$1")"
}

make_environment() {
  local base
  base=$(find_python)
  echo "Making .venv with $("$base" --version) …"
  rm -rf "$venv"
  if "$base" -c 'import ensurepip' 2>/dev/null; then
    "$base" -m venv "$venv"
  else
    "$base" -m venv --without-pip "$venv" || no_venv "$base"
    scripts/unpack-debs.sh .tools/pip python3-pip-whl || no_venv "$base"
    local wheels=(.tools/pip/usr/share/python-wheels/pip-*.whl)
    "$python" "${wheels[0]}/pip" install -q --no-index "${wheels[0]}"
  fi
}

# PYTHON, or else the system's python3 where it is new enough, or else the newest of the others.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  {
    echo "Quarterdeck needs Python 3.11 or later; found: $(python3 --version 2>/dev/null || echo none)."
    echo "Debian 12, Ubuntu 24.04 and later have it: apt-get install python3 python3-venv."
    echo "Another one is used with: make run PYTHON=/path/to/python3.12"
  } >&2
  exit 1
}

no_venv() {
  {
    echo "$1 can't make virtual environments: Debian and Ubuntu keep that part in a package of its own."
    echo "Install it with: sudo apt-get install python3-venv"
  } >&2
  exit 1
}

# The lock is its own constraint: pip looks for a package that is asked for with extras (pydantic[email]) on its own,
# finds a release newer than the locked one, and refuses that for want of a hash.
install() {
  local log=$venv/install.log
  echo "Installing packages of $lock into .venv (less than a minute) …"
  if ! "$python" -m pip install --require-hashes --disable-pip-version-check --no-input -r "$lock" -c "$lock" 2>"$log" |
    progress "$(grep -c '^[a-z0-9].*==' "$lock")"; then
    echo "Installing failed:" >&2
    grep -v '^WARNING' "$log" | tail -n 5 >&2
    exit 1
  fi
}

# pip's many lines as a counter: one line on a terminal, a line every so often elsewhere.
progress() {
  awk -v total="$1" -v terminal="$([ -t 1 ] && echo 1 || echo 0)" '
    function show(text) { printf terminal ? "\r  %-50s" : "  %s\n", text; fflush() }
    /^(Collecting|Requirement already)/ { n++; if (terminal || n % 40 == 0) show(n " of about " total " found") }
    /^Installing collected/ { show("installing " n " packages") }
    END { if (terminal) printf "\n" }'
}

main

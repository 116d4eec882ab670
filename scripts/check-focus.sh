#!/usr/bin/env bash
# Checks a FOCUS 1.2 file with the FinOps Foundation's own validator.
#
#   scripts/check-focus.sh FILE.csv
#
# Needs Python 3.12 or later (PYTHON names one). Its environment is below .tools and is made once (some 600 MB).
set -euo pipefail
file=$(realpath "${1:?usage: $0 FILE.csv}")
cd "$(dirname "$0")/.."
environment=$PWD/.tools/focus-validator

if [ ! -x "$environment/bin/focus-validator" ]; then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 12))' || {
    echo "focus-validator needs Python 3.12 or later: PYTHON=python3.12 $0 …" >&2
    exit 2
  }
  "${PYTHON:-python3}" -m venv "$environment"
  # The validator pins NumPy 1, which later releases of pyarrow do not work with.
  "$environment/bin/pip" install -q 'focus-validator==2.1.0' 'pyarrow<21'
fi

# It looks for its tables below the folder it is called in.
cd "$("$environment/bin/python" -c 'import focus_validator, pathlib; print(pathlib.Path(focus_validator.__file__).parents[1])')"
report=$("$environment/bin/focus-validator" --data-file "$file" --validate-version 1.2.0.1 --block-download \
  --focus-dataset CostAndUsage --show-violations) || true
grep '^Total:' <<<"$report" || {
  echo "$report" >&2
  exit 2
}
# Every file breaks one of the two: InvoiceId MUST be null, and MUST NOT be null.
if grep -E ' FAIL ' <<<"$report" | grep -vE 'InvoiceId-C-00[45]-C'; then
  exit 1
fi

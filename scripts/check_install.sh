#!/usr/bin/env bash
# Prove that moeprof installs: build a wheel and an sdist, install each in a clean environment, make the sample page.
#
# usage: check_install.sh [--dist FOLDER] [--lowest] [--tests "TESTS"] PYTHON...
#
# PYTHON           an interpreter (python3.11, /path/to/python3.14); several are checked one after another
# --dist FOLDER    build into FOLDER; if it already contains a wheel and an sdist, check those
# --lowest         install each direct dependency at its lower bound of pyproject.toml
# --tests "TESTS"  also run these tests of the unpacked sdist against the installed package, for example "tests/unit"
#
# The environments contain no torch. Exit 0 if every interpreter passes.
set -euo pipefail

dist="" lowest="" tests=""
while [[ ${1:-} == --* ]]; do
  case $1 in
    --dist) mkdir -p "$2" && dist=$(cd "$2" && pwd) && shift 2 ;;
    --help) sed -n '2,/^set/{/^#/p}' "$0" && exit ;;
    --lowest) lowest=yes && shift ;;
    --tests) tests=$2 && shift 2 ;;
    *) echo "unknown option: $1" >&2 && exit 2 ;;
  esac
done
[[ $# -gt 0 ]] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2; }

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${dist:-$work/dist}

build() { # the sdist from the tracked files, and the wheel from that sdist: so the sdist is complete
  "$1" -m venv "$work/build" && "$work/build/bin/pip" install -q build
  mkdir "$work/source" && (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -c) | tar -x -C "$work/source"
  "$work/build/bin/python" -m build --outdir "$dist" "$work/source" >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2 && return 1; }
}

bounds() { # "click>=8.1" as "click==8.1"
  "$1" -c 'import sys, tomllib; print("\n".join(d.split(",")[0].replace(">=", "==") for d in tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]))' "$2/pyproject.toml"
}

sample() { # $1: bin folder of an environment, $2: an empty folder to work in
  mkdir "$2" && cd "$2"
  ! "$1/python" -c "import torch" 2>/dev/null || { echo "torch is installed here" >&2 && return 1; }
  "$1/moeprof" --version && "$1/moeprof" list >/dev/null
  "$1/moeprof" report --diff --sample kv_transfer -o page.html >report.txt
  grep -q "FASTER\|SAME\|SLOWER\|UNCLEAR" report.txt
  grep -q "kv_transfer" page.html && [[ $(stat -c %s page.html) -gt 100000 ]]
}

check() { # $1: interpreter, $2: wheel or sdist, $3: a name
  local home=$work/$3
  "$1" -m venv "$home"
  local constraint=()
  if [[ -n $lowest ]]; then
    bounds "$1" "$unpacked" >"$home/lowest.txt" && constraint=(-c "$home/lowest.txt")
  fi
  "$home/bin/pip" install -q ${constraint[@]+"${constraint[@]}"} "$2"
  (sample "$home/bin" "$home/folder") || { echo "FAILED: $1, $(basename "$2")" >&2 && return 1; }
  echo "ok: $("$1" -V), $(basename "$2"): the sample page is made without torch"
}

run_tests() { # the sdist's own tests; `pytest` and not `python -m pytest`: the installed package is tested, not the folder
  local home=$work/$1
  "$home/bin/pip" install -q ${lowest:+-c "$home/lowest.txt"} "pytest>=8" "hypothesis>=6" jsonschema pyarrow
  (cd "$unpacked" && "$home/bin/pytest" -p no:cacheprovider $tests)
}

compgen -G "$dist/*.whl" >/dev/null && compgen -G "$dist/*.tar.gz" >/dev/null || build "$1"
mkdir "$work/sdist" && tar -x -C "$work/sdist" -f "$dist"/*.tar.gz
unpacked=$(echo "$work"/sdist/*)
number=0
for python in "$@"; do
  number=$((number + 1))
  check "$python" "$(echo "$dist"/*.whl)" "wheel$number"
  check "$python" "$(echo "$dist"/*.tar.gz)" "sdist$number"
  [[ -z $tests ]] || run_tests "sdist$number"
done

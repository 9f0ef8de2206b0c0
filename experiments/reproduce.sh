#!/usr/bin/env bash
# Every table and figure of the paper on a machine with data, weights and a GPU, the cheapest first (docs/costs.md).
# It can be stopped at any time: the same command goes on where it was. Arguments go to every `alphatune table`.
set -u

tables=(
  figure4
  figure5
  table4
  table3
  table11
  table13
  table14
  table2
  table8
  table6
  table5
  table15
  table7
)

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
alphatune="${ALPHATUNE:-$here/.venv/bin/alphatune}"
[ -x "$alphatune" ] || alphatune=alphatune
undone=()
trap 'echo "stopped: what is finished is kept; the same command goes on" >&2; exit 130' INT TERM

for table in "${tables[@]}"; do
  "$alphatune" table "$table" "$@"
  status=$?
  case $status in
    0) ;;
    130) exit 130 ;;
    *) undone+=("$table (exit status $status)") ;;
  esac
done
"$alphatune" report || undone+=("report")
if [ ${#undone[@]} -gt 0 ]; then
  printf 'not whole: %s\n' "${undone[@]}" >&2
  exit 1
fi

#!/bin/sh
# Instructions by part, counted by valgrind: the same on a busy machine as on a quiet one.
#
#   benches/instructions.sh            prints instructions an event for append, read, decode and fold
#   benches/instructions.sh > before   … and again on another commit, then: diff before after
#
# The writer's thread spins for a moment before it sleeps, so appends vary by a few per cent; the others hardly do.
set -eu
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "instructions.sh needs valgrind" >&2; exit 1; }
cargo build --release --quiet -p benches --bin counted
program="${CARGO_TARGET_DIR:-target}/release/counted"
events=1000
before=0
for step in nothing append read decode fold; do
    count=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$step" 2>&1 >/dev/null |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
    case $step in
    nothing) ;;
    # These two are done a hundred times.
    decode | fold) printf '%-8s %8d instructions an event\n' "$step" $(((count - before) / events / 100)) ;;
    *) printf '%-8s %8d instructions an event\n' "$step" $(((count - before) / events)) ;;
    esac
    before=$count
done

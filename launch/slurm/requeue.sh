# Read by the batch scripts beside it: one run directory, and one run, over all requeues of a job.
#
# Exit code 85 says that a signal stopped the training after a complete checkpoint: the job goes back into the queue and
# its next attempt goes on from there.  Three requeues in a row that brought no new checkpoint end the job with 93.
# Every other code is the job's own.

# settle FLAGS...: sets run_dir, and flags: FLAGS with what all attempts must share.
settle() {
    flags=("$@")
    # The program's own reading of flags and --config; nothing if it will refuse them.
    run_dir=$(PYTHONPATH=$repository python -c 'import sys
from launch.job.arguments import parse_arguments
print(parse_arguments(sys.argv[1:], program="", description="").run_dir or "")' "$@" 2>/dev/null) || run_dir=""
    [ -n "$run_dir" ] || { run_dir=runs/slurm-$SLURM_JOB_ID; flags+=(--run-dir "$run_dir"); }
    # --resume never protects an earlier run's directory; now it is this job's own.
    [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || [ -z "$(newest_checkpoint)" ] || flags+=(--resume auto)
}

# The name of the newest checkpoint; empty if there is none.
newest_checkpoint() {
    find "$run_dir/checkpoints" -maxdepth 1 -name 'step-*' -printf '%f\n' 2>/dev/null | sort | tail -n 1 || true
}

# finish CODE: the end of an attempt whose training ended with CODE.
finish() {
    [ "$1" = 85 ] || exit "$1"
    local now seen="" count=""
    now=$(newest_checkpoint)
    # What the attempt before this one left; a job that was submitted anew counts from the beginning.
    [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || read -r seen count 2>/dev/null <"$run_dir/requeues" || true
    if [ "$seen" = "${now:-none}" ]; then count=$((count + 1)); else count=0; fi
    mkdir -p "$run_dir"
    echo "${now:-none} $count" >"$run_dir/requeues"
    if [ "$count" -ge 3 ]; then
        echo "requeue: $count requeues in a row brought no checkpoint after ${now:-the start}, so this is not requeued;" \
             "give the job more time (--time), or save more often (--checkpoint-every-steps)" >&2
        exit 93
    fi
    echo "requeue: stopped at ${now:-the start} of $run_dir; job $SLURM_JOB_ID goes back into the queue"
    # Slurm ends this script while it requeues the job.
    scontrol requeue "$SLURM_JOB_ID" ||
        echo "requeue: Slurm refused; to go on, submit the same flags with --run-dir $run_dir" >&2
    exit 85
}

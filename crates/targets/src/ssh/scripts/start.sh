# Carried out by the agent's own process before it becomes the agent: it notes who it is.
loom_becomes='
loom__stat=$(cat "/proc/$$/stat") || exit 126
loom__dir=$1 loom__line=$2
set -f
set -- ${loom__stat##*) }
set +f
shift 19
IFS= read -r loom__boot </proc/sys/kernel/random/boot_id || exit 126
printf "%s %s %s\n" "$$" "$1" "$loom__boot" >"$loom__dir/process.new" || exit 126
mv "$loom__dir/process.new" "$loom__dir/process" || exit 126
exec /bin/sh -c "$loom__line"
'

loom_main() {
    loom_begin
    loom_make_dir
    exec 9>>"$loom_dir/lock"
    loom_left=50
    # While anything of it lives, it is the same start.
    until flock -n 9; do
        if loom_noted; then
            loom_say "existing $loom_pid $loom_start $loom_at $(loom_tunnel)"
        fi
        [ "$loom_left" -gt 0 ] || loom_say pending
        loom_left=$((loom_left - 1))
        loom_pause
    done
    if loom_noted; then
        # It has ended since.
        loom_say "existing $loom_pid $loom_start $loom_at $(loom_tunnel)"
    fi
    [ ! -e "$loom_dir/stopped" ] ||
        loom_refuse "this start was ended before it began; begin another one"
    loom_check
    printf '%s\n' "$loom_tunnel_wanted" >"$loom_dir/tunnel" ||
        loom_refuse "the directory $loom_dir can't be written; make room or mend its rights"
    : >"$loom_dir/out"
    exec 8>>"$loom_dir/out"
    flock -n 8
    (
        umask "$loom_umask"
        loom_exports
        exec setsid /bin/sh -c "$loom_becomes" loom-agent "$loom_dir" "$loom_command"
    ) </dev/null 2>&1 8>&- 9>&9 | setsid tail -c 16384 >"$loom_dir/out" 2>/dev/null 8>&8 9>&- &
    exec 8>&-
    loom_left=100
    until loom_noted; do
        [ "$loom_left" -gt 0 ] || loom_say pending
        loom_left=$((loom_left - 1))
        loom_pause
    done
    loom_say "started $loom_pid $loom_start $loom_at $(loom_tunnel)"
}

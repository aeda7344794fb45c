# All that lives of the start.
loom_members() {
    loom_marked
    [ -n "$loom_of_session" ] || return 0
    for loom_folder in /proc/[0-9]*; do
        loom_one=${loom_folder#/proc/}
        if loom_stat "$loom_one" && [ "$loom_session" = "$loom_of_session" ]; then
            printf '%s\n' "$loom_one"
        fi
    done
}

loom_main() {
    loom_begin
    loom_make_dir
    if [ -z "$loom_ref_pid" ] && loom_noted; then
        loom_ref_pid=$loom_pid loom_ref_start=$loom_start loom_ref_boot=$loom_at
    fi
    # A session without its leader could be another one's by now, unless the lock says that something of it lives.
    loom_of_session=
    if [ -n "$loom_ref_pid" ] && [ "$loom_ref_boot" = "$loom_boot" ]; then
        if loom_lives "$loom_ref_pid" "$loom_ref_start" "$loom_ref_boot"; then
            [ "$loom_session" != "$loom_ref_pid" ] || loom_of_session=$loom_ref_pid
        elif [ ! -e "/proc/$loom_ref_pid" ] && loom_held; then
            loom_of_session=$loom_ref_pid
        fi
    fi
    loom_asked=' ' loom_killed=' ' loom_seen=0 loom_hard=0
    loom_begun=$(date +%s)
    exec 9>>"$loom_dir/lock"
    loom_forked=50
    while :; do
        loom_living=
        for loom_one in $(loom_members); do
            loom_stat "$loom_one" && loom_living="$loom_living $loom_one"
        done
        loom_waited=$(($(date +%s) - loom_begun))
        if [ -z "$loom_living" ]; then
            # A start that is still on its way finds that it is too late. One that was just forked shows in a moment.
            if flock -n 9; then
                : >"$loom_dir/stopped"
                break
            fi
            [ "$loom_forked" -gt 0 ] && ! loom_noted || break
            loom_forked=$((loom_forked - 1))
        fi
        [ "$loom_waited" -le $((loom_grace + 5)) ] ||
            loom_refuse "the processes$loom_living do not end there, not even by KILL; look at what they wait for"
        for loom_one in $loom_living; do
            case $loom_asked in
                *" $loom_one "*) ;;
                *)
                    kill -TERM "$loom_one" 2>/dev/null
                    loom_asked="$loom_asked$loom_one " loom_seen=$((loom_seen + 1)) ;;
            esac
            [ "$loom_waited" -ge "$loom_grace" ] || continue
            kill -KILL "$loom_one" 2>/dev/null
            case $loom_killed in
                *" $loom_one "*) ;;
                *) loom_killed="$loom_killed$loom_one " loom_hard=$((loom_hard + 1)) ;;
            esac
        done
        loom_pause
    done
    printf 'loom-answer stopped %s %s\n' "$loom_seen" "$loom_hard"
    loom_output
    exit 0
}

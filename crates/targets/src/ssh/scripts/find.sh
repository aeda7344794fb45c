loom_main() {
    loom_begin
    loom_left=50
    while :; do
        if [ -n "$loom_ref_pid" ] && loom_lives "$loom_ref_pid" "$loom_ref_start" "$loom_ref_boot"; then
            loom_say "running $loom_ref_pid $loom_ref_start $loom_ref_boot $(loom_tunnel)"
        fi
        loom_was_noted=
        if loom_noted; then
            loom_was_noted=1
            if loom_lives "$loom_pid" "$loom_start" "$loom_at"; then
                loom_say "running $loom_pid $loom_start $loom_at $(loom_tunnel)"
            fi
        fi
        loom_oldest= loom_oldest_start=
        for loom_one in $(loom_marked); do
            loom_stat "$loom_one" || continue
            if [ -z "$loom_oldest" ] || [ "$loom_started" -lt "$loom_oldest_start" ]; then
                loom_oldest=$loom_one loom_oldest_start=$loom_started
            fi
        done
        if [ -n "$loom_oldest" ]; then
            loom_say "running $loom_oldest $loom_oldest_start $loom_boot $(loom_tunnel)"
        fi
        if [ -n "$loom_ref_pid$loom_was_noted" ]; then
            printf 'loom-answer ended\n'
            loom_output
            exit 0
        fi
        loom_held || loom_say absent
        # A process that has not noted yet who it is.
        [ "$loom_left" -gt 0 ] || loom_say pending
        loom_left=$((loom_left - 1))
        loom_pause
    done
}

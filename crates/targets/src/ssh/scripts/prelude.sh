# What every script begins with. It is carried out only when its last line has come: everything is in functions.
# POSIX sh; all names begin with loom_, since the variables of an agent may have any other.

loom_base=${TMPDIR:-/tmp}/loom-spin-ups-$(id -u)
loom_dir=$loom_base/$loom_id
loom_boot=

loom_say() {
    printf 'loom-answer %s\n' "$1"
    exit 0
}

loom_refuse() {
    loom_say "refused $1"
}

loom_pause() {
    sleep 0.1 2>/dev/null || sleep 1
}

loom_begin() {
    loom_umask=$(umask)
    umask 077
    for loom_tool in setsid flock tail grep; do
        command -v "$loom_tool" >/dev/null 2>&1 ||
            loom_refuse "the program $loom_tool is missing there; install it (Debian: util-linux, coreutils, grep)"
    done
    { IFS= read -r loom_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null ||
        loom_refuse "that machine has no /proc, by which agents are found again; agents are started on Linux only"
}

# Makes the directory of starts, which must be this account's own.
loom_make_dir() {
    mkdir -p "$loom_base" 2>/dev/null
    if [ ! -d "$loom_base" ] || [ -h "$loom_base" ] || [ ! -O "$loom_base" ]; then
        loom_refuse "the directory $loom_base is not this account's own; remove it"
    fi
    mkdir -p "$loom_dir" 2>/dev/null
    ( : >>"$loom_dir/lock" ) 2>/dev/null ||
        loom_refuse "the directory $loom_dir can't be written; make room or mend its rights"
}

# State, group, session and start of a process; fails where it does not live.
loom_stat() {
    loom_line=
    { IFS= read -r loom_line <"/proc/$1/stat"; } 2>/dev/null
    case $loom_line in
        *') '*) ;;
        *) return 1 ;;
    esac
    set -f
    # The name in brackets may hold anything.
    set -- ${loom_line##*) }
    set +f
    [ $# -ge 20 ] || return 1
    loom_state=$1 loom_session=$4
    shift 19
    loom_started=$1
    case $loom_state in
        Z | X) return 1 ;;
    esac
}

# Whether a process lives that has this number, start, and start of the system.
loom_lives() {
    [ "$3" = "$loom_boot" ] && loom_stat "$1" && [ "$loom_started" = "$2" ]
}

# The process that an agent was started as, from its own note.
loom_noted() {
    loom_pid= loom_start= loom_at=
    { read -r loom_pid loom_start loom_at <"$loom_dir/process"; } 2>/dev/null && [ -n "$loom_at" ]
}

# The port of the tunnel that an agent was told of, from the note beside its own; `-` where it was told of none.
loom_tunnel() {
    loom_tunnel_port=-
    { IFS= read -r loom_tunnel_port <"$loom_dir/tunnel"; } 2>/dev/null
    printf '%s' "${loom_tunnel_port:--}"
}

# Everybody with the id of the start in the environment.
loom_marked() {
    for loom_file in $(grep -ls "LOOM_SPIN_UP_ID=$loom_id" /proc/[0-9]*/environ 2>/dev/null); do
        loom_file=${loom_file#/proc/}
        printf '%s\n' "${loom_file%/environ}"
    done
}

# Whether something of the start lives, or is being started.
loom_held() {
    [ -e "$loom_dir/lock" ] && ! ( exec 9<"$loom_dir/lock" && flock -n 9 ) 2>/dev/null
}

# The end of what an agent said, once its `tail` has written it.
loom_output() {
    [ -e "$loom_dir/out" ] || return 0
    flock -w 1 "$loom_dir/out" true 2>/dev/null
    cat "$loom_dir/out" 2>/dev/null
}

# Whether the command is there, as the agent would find it.
loom_check() {
    case $loom_dir_wanted in
        '~' | '~/'*) loom_dir_wanted=$HOME${loom_dir_wanted#'~'} ;;
    esac
    case $loom_dir_wanted in
        '') ;;
        *) cd "$loom_dir_wanted" 2>/dev/null ||
            loom_refuse "the working directory $loom_dir_wanted can't be entered there; make it, or write another workingDirectory" ;;
    esac
    case $loom_word in
        '') return 0 ;;
        */*)
            [ -e "$loom_word" ] ||
                loom_refuse "the command $loom_word was not found there; install it, or write its path as command"
            [ -x "$loom_word" ] && [ ! -d "$loom_word" ] ||
                loom_refuse "the command $loom_word is not executable there; give it the right to be executed (chmod +x)" ;;
        *)
            ( loom_exports && command -v "$loom_word" >/dev/null 2>&1 ) ||
                loom_refuse "the command $loom_word was not found there; install it, or write its path as command" ;;
    esac
}

# Sourced by the scripts that start a server of their own: on loopback, on free ports unless told otherwise, with its
# mail in a temporary directory; both go when the script ends.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
server_pid=
# Further processes to end at exit: their ids, by name.
declare -A others=()

# Ends the server, and waits for it.
stop_server() {
    if [[ -n $server_pid ]]; then
        kill -TERM "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
}

# end_process PID: ends it, and waits until it is gone, 10 s at most; then it is killed.
end_process() {
    local _
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in {1..200}; do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null || true
}

clean_up() {
    local pid
    stop_server
    for pid in "${others[@]}"; do
        end_process "$pid"
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Builds the programs unless they are there.
need_programs() {
    local program
    for program in "$@"; do
        if [[ ! -x $top/$program ]]; then
            "$top/scripts/build" >&2
            return
        fi
    done
}

# start_server OPTION...: returns when the server listens. Sets server_pid, pop3_port, pop3s_port (if it has one, which
# it tells before PEEP's) and peep_port.
# shellcheck disable=SC2034 # not every script wants each
start_server() {
    local line
    pop3_port='' pop3s_port='' peep_port=''
    coproc SERVER { exec "$top/pop3d" --address 127.0.0.1 --peep-address 127.0.0.1 "$@"; }
    # shellcheck disable=SC2153 # set by coproc
    server_pid=$SERVER_PID
    while [[ -z $pop3_port || -z $peep_port ]] && read -r -t 10 line <&"${SERVER[0]}"; do
        case $line in
            'POP3 listening on '*) pop3_port=${line##*:} ;;
            'POP3S listening on '*) pop3s_port=${line##*:} ;;
            'PEEP listening on '*) peep_port=${line##*:} ;;
        esac
    done
    [[ -n $pop3_port && -n $peep_port ]] || fail "the server did not start"
}

# Sourced by the scripts that start a server: on loopback, by default on free ports, with its mail in a temporary directory.
# When the script ends, the server is stopped and the directory removed.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
server_pid=
# Further processes to end at exit: their ids, by name.
declare -A others=()

# Stops the server and waits until it has ended.
stop_server() {
    if [[ -n $server_pid ]]; then
        kill -TERM "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
        server_pid=
    fi
}

# end_process PID: stops the process and waits until it has ended, for at most 10 s. Then the process is killed.
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

# need_programs NAME...: builds the programs unless they exist.
need_programs() {
    local program
    for program in "$@"; do
        if [[ ! -x $top/$program ]]; then
            "$top/scripts/build" >&2
            return
        fi
    done
}

# start_server OPTION...: starts the server and returns when it listens. Sets server_pid, pop3_port, peep_port and, if the
# server has one, pop3s_port. The server prints the port of POP3S before that of PEEP.
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

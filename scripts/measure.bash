# Sourced by the scripts that measure (bench, stress, growth): their command line, runs of popbench whose reports are kept
# as JSON, other servers than pop3d, and plots.
# shellcheck shell=bash

# shellcheck source=scripts/server.bash
source "$(dirname "${BASH_SOURCE[0]}")/server.bash"

# A figure is the median of this many runs, unless the script says otherwise.
rounds=3
# The password of all users of all servers.
password=pass
# The ports of the servers: pop3d, dovecot, bare; with -tls behind the name, those by TLS.
declare -A port=()

# measure_options ARGUMENT...: --quick or --full, and a directory. Sets extent and results. Needs usage().
measure_options() {
    extent=full results=
    while (($# > 0)); do
        case $1 in
            --quick | --full) extent=${1#--} ;;
            -h | --help) usage; exit ;;
            -*) usage >&2; exit 2 ;;
            *) [[ -z $results ]] || { usage >&2; exit 2; }; results=$1 ;;
        esac
        shift
    done
    results=${results:-$(mktemp -d)}
    mkdir -p "$results"
    results=$(cd "$results" && pwd)
    : >"$results/runs.json"
    say "results go to $results"
}

# Prints progress on stderr. Only results are printed on stdout.
say() {
    echo "${0##*/}: $*" >&2
}

# by_extent QUICK FULL: prints the value for the extent of this run.
by_extent() {
    if [[ $extent == quick ]]; then echo "$1"; else echo "$2"; fi
}

# Builds, installs missing programs, and raises the limit of open files as far as allowed.
prepare() {
    "$top/scripts/install-test-tools" --measuring >&2
    "$top/scripts/build" >&2
    ulimit -n "$(ulimit -Hn)"
}

# Prints the machine and the program in one line, for readers of the results.
machine() {
    local model commit
    model=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
    commit=$(git -C "$top" describe --always --dirty 2>/dev/null || echo 'unknown')
    echo "$(nproc) cores of ${model:-$(uname -m)}, Linux $(uname -r), $(date --utc +%F), pop3d at $commit"
}

# Prints an account for each maildrop in MAIL, as NAME:PASSWORD. A file is an mbox.
accounts() {
    find "$1" -mindepth 1 -maxdepth 1 ! -name '*.*' -printf "%f:$password\\n"
}

# serve MAIL OPTION...: (re)starts pop3d with an account for each directory of MAIL.
serve() {
    local mail=$1 accounts
    shift
    stop_server
    mapfile -t accounts < <(accounts "$mail" | sed 's/^/--user=/')
    start_server -p 0 -P 0 -m "$mail" -qq "${accounts[@]}" "$@"
    port[pop3d]=$pop3_port
    port[pop3d-tls]=$pop3s_port
}

# server_cpu: the CPU time that pop3d has used, in microseconds.
server_cpu() {
    awk '{ print ($14 + $15) * 1000000 / '"$(getconf CLK_TCK)"' }' "/proc/$server_pid/stat"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# serve_dovecot MAIL OPTION...: (re)starts Dovecot with the same accounts and these options of dovecot-peer. Its
# certificate is $work/dovecot/tls-cert.pem.
serve_dovecot() {
    local mail=$1
    shift
    if [[ -n ${others[dovecot]-} ]]; then
        end_process "${others[dovecot]}"
        unset 'others[dovecot]'
    fi
    accounts "$mail" >"$work/accounts"
    # The users that Dovecot's processes run as have to be able to enter the directory.
    chmod 755 "$work"
    port[dovecot]=$(free_port)
    port[dovecot-tls]=$(free_port)
    others[dovecot]=$("$top/scripts/dovecot-peer" "$@" "${port[dovecot]}" "$mail" "$work/accounts" "$work/dovecot" \
        "${port[dovecot-tls]}")
}

# serve_bare MAILDIR [read]: (re)starts the server that does no work, with the messages of that Maildir; with "read", it
# reads them at each login.
serve_bare() {
    local said=$work/bare program=${CARGO_TARGET_DIR:-$top/target}/release/examples/bare-server _
    (cd "$top" && cargo build --quiet --release --locked --example bare-server)
    if [[ -n ${others[bare]-} ]]; then
        end_process "${others[bare]}"
        unset 'others[bare]'
    fi
    : >"$said"
    "$program" "$@" >"$said" &
    others[bare]=$!
    for _ in {1..100}; do
        [[ ! -s $said ]] || break
        sleep 0.05
    done
    port[bare]=$(<"$said")
    [[ -n ${port[bare]} ]] || fail 'bare-server did not start'
}

# run_popbench SERVER ARGUMENT...: runs popbench and prints its report as one line of JSON, even after errors.
run_popbench() {
    local name=$1 report status=0
    shift
    [[ " $* " != *' --tls '* ]] || name+=-tls
    report=$(timeout 600 "$top/popbench" "$@" --address "127.0.0.1:${port[$name]}" --password "$password" \
        --timeout 120s --json --quiet) || status=$?
    [[ -n $report ]] || fail "popbench ended with $status: $*"
    jq --compact-output . <<<"$report"
}

# keep NAME=VALUE...: adds these fields to the report on stdin, and appends it to runs.json.
keep() {
    local pair arguments=()
    for pair in "$@"; do
        arguments+=(--arg "${pair%%=*}" "${pair#*=}")
    done
    # shellcheck disable=SC2016 # $ARGS is jq's
    jq --compact-output "${arguments[@]}" '$ARGS.named + .' >>"$results/runs.json"
}

# The median of the numbers on stdin, a line each.
median() {
    sort -g | awk '{ n[NR] = $1 } END { print NR ? (n[int((NR + 1) / 2)] + n[int(NR / 2) + 1]) / 2 : "" }'
}

# What measured runs before each run.
before_run=:

# measured WORK FILTER ARGUMENT...: runs popbench on pop3d $rounds times, keeps the reports under the name WORK, and prints
# the median of the figures that the jq expression FILTER extracts from them.
measured() {
    local label=$1 filter=$2 round report
    shift 2
    for ((round = 0; round < rounds; round++)); do
        "$before_run"
        report=$(run_popbench pop3d "$@")
        keep work="$label" arguments="$*" <<<"$report"
        jq "$filter" <<<"$report"
    done | median
}

# print_results NAME...: these CSV files; fails when any run had errors.
print_results() {
    local name errors
    for name in "$@"; do
        printf '\n%s.csv\n' "$name"
        cat "$results/$name.csv"
    done
    errors=$(jq --slurp '[.[].errors[].count] | add // 0' "$results/runs.json")
    ((errors == 0)) || fail "$errors errors, see $results/runs.json"
}

# Prints the table of the runs in runs.json. They were kept with the fields work, server (dovecot, pop3d or bare) and does,
# which says what the server "bare" does.
table() {
    echo '| work | Dovecot | pop3d | ratio |'
    echo '|---|---|---|---|'
    jq --raw-output '[.work, .server, .figure.value, .figure.unit, .figure.more_is_better,
            ([.errors[].count] | add // 0), (.errors[0].kind // ""), .does] | @tsv' "$results/runs.json" |
        awk -F '\t' '
            function sorted(list, n,    i, j, value) {
                for (i = 2; i <= n; i++) {
                    value = list[i]
                    for (j = i - 1; j >= 1 && list[j] > value; j--)
                        list[j + 1] = list[j]
                    list[j + 1] = value
                }
            }
            function middle(list, n) { return (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2 }
            # 1234567.8 -> 1,234,568 and 1.2345 -> 1.23
            function number(value,    text) {
                if (value < 99.95)
                    return sprintf(value < 9.995 ? "%.2f" : "%.1f", value)
                text = sprintf("%.0f", value)
                while (match(text, /^[0-9]+[0-9][0-9][0-9](,|$)/)) {
                    match(text, /^[0-9]+/)
                    text = substr(text, 1, RLENGTH - 3) "," substr(text, RLENGTH - 2)
                }
                return text
            }
            # Sets median[work, server].
            function cell(work, server,    list, n, i, text) {
                n = runs[work, server]
                for (i = 1; i <= n; i++)
                    list[i] = figure[work, server, i]
                sorted(list, n)
                median[work, server] = middle(list, n)
                text = number(middle(list, n)) " " unit[work] " (" number(list[1]) "–" number(list[n]) ")"
                if (errors[work, server])
                    text = text "; " errors[work, server] " errors, as " kind[work, server]
                return text
            }
            function quotient(work, a, b) {
                if (a == 0 || b == 0)
                    return 0
                return more[work] == "true" ? b / a : a / b
            }
            function ratio(work, from, to,    list, n, i, all) {
                for (i = 1; i <= runs[work, from]; i++)
                    list[i] = quotient(work, figure[work, from, i], figure[work, to, i])
                n = runs[work, from]
                sorted(list, n)
                all = quotient(work, median[work, from], median[work, to])
                return all ? number(all) "× (" number(list[1]) "–" number(list[n]) ")" : "no figure"
            }
            !($1 in unit) { order[++works] = $1; unit[$1] = $4; more[$1] = $5; does[$1] = $8 }
            {
                figure[$1, $2, ++runs[$1, $2]] = $3 + 0
                errors[$1, $2] += $6
                if ($7 != "")
                    kind[$1, $2] = $7
            }
            END {
                for (i = 1; i <= works; i++) {
                    work = order[i]
                    dovecot = cell(work, "dovecot")
                    pop3d = cell(work, "pop3d")
                    print "| " work " | " dovecot " | " pop3d " | " ratio(work, "dovecot", "pop3d") " |"
                    if (runs[work, "bare"]) {
                        bare = cell(work, "bare")
                        print "| *against a server that does " does[work] "* | " bare " | " pop3d " | " \
                            ratio(work, "bare", "pop3d") " |"
                    }
                }
            }'
    printf '\nMedian of %s rounds by turns (least–most); ' "$rounds"
    echo "scripts/${0##*/} --$extent on $(machine)."
}

# forget MAIL: removes the files that both servers keep about maildrops in MAIL, so that the maildrops are new to them.
forget() {
    find "$1" -mindepth 2 -maxdepth 2 \
        \( -name .pop3d-index -o -name 'dovecot.index*' -o -name 'dovecot-uidlist*' -o -name 'dovecot.list.index*' \) \
        -delete
}

# as_delivered MAIL: moves messages from cur/ back to new/, where they were delivered.
as_delivered() {
    python3 - "$1" <<'END'
import os, sys

for user in os.scandir(sys.argv[1]):
    seen, new = (os.path.join(user.path, folder) for folder in ("cur", "new"))
    for name in os.listdir(seen):
        os.rename(os.path.join(seen, name), os.path.join(new, name.split(":")[0]))
END
}

# The PSS of a process in octets.
pss() {
    awk '/^Pss:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"
}

# plot NAME: gnuplot's commands on stdin, run in the results, draw NAME.svg.
plot() {
    {
        cat <<END
set terminal svg size 720,440 enhanced font 'sans-serif,13' background 'white'
set output '$1.svg'
set datafile separator ','
set key top left Left reverse
set grid
set style data linespoints
set pointsize 0.6
END
        cat
    } | (cd "$results" && gnuplot)
}

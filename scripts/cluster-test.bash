# Sourced by scripts/cluster: what --test does to the cluster while clients use it.
# shellcheck shell=bash disable=SC2154 # scripts/cluster sets top, work, hosts and storage

# peep HOST WORD...: peepclient on that host.
peep() {
    local host=$1
    shift
    on "$host" "$top/peepclient" --socket /run/pop3d.peep "$@" >/dev/null
}

# is STATE HOST: true if HAProxy sees the host as UP or DOWN.
is() {
    local state
    state=$(on pass python3 "$top/scripts/cluster.py" state "$2")
    [[ $state == "$1" ]]
}

is_healed() {
    local info
    info=$(on mail3 gluster --mode=script volume heal mail info) || return 1
    [[ $(grep -c '^Number of entries: 0$' <<<"$info") == 3 ]]
}

# step NAME: writes the beginning of a step into the clients' journal.
step() {
    say "$1"
    printf '{"step": "%s", "at": %s}\n' "$1" "$(date +%s.%N)" >>"$work/journal"
}

# avoided HOST: waits until HAProxy avoids the host, and writes into the journal when that was.
avoided() {
    eventually 20 "HAProxy avoids $1" is DOWN "$1"
    printf '{"avoided": "%s", "at": %s}\n' "$1" "$(date +%s.%N)" >>"$work/journal"
}

# hold HOST OTHER: keeps a session of the user "held" on HOST. Writes into the journal when a login on OTHER succeeds.
hold() {
    rm -f "$work/held"
    python3 "$top/scripts/cluster.py" hold "${address[$1]}" "${address[$2]}" "$work/held" "$work/journal" &
    holder=$!
    eventually 30 "a session on $1" test -e "$work/held"
}

test_drain() {
    step 'drain mail1'
    peep mail1 drain
    avoided mail1
    sleep 3
    peep mail1 resume
    eventually 20 'mail1 is back' is UP mail1
}

test_kill() {
    hold mail2 mail3
    step 'kill the server of mail2'
    # shellcheck disable=SC2016 # there
    on mail2 bash -c 'kill -KILL $(pgrep -x pop3d)'
    avoided mail2
    wait "$holder" || fail "no login after mail2's server was killed"
    eventually 60 'the end of the killed server' ended mail2
    start_pop3d mail2
    eventually 20 'mail2 is back' is UP mail2
}

# ended HOST: true if no server runs there. A call of the file system that hangs keeps a killed server alive.
ended() {
    ! on "$1" pgrep -x pop3d
}

test_disk() {
    step "stop mail3's copy of the mail"
    # shellcheck disable=SC2016 # there
    on mail3 bash -c 'kill -KILL $(pgrep -x glusterfsd)'
    sleep 8
    gluster volume start mail force
    eventually 90 'the copy of mail3 is complete' is_healed
}

# expect HOST REPLY USER PASSWORD: fails unless the host's reply to such a login has this beginning.
expect() {
    local reply
    reply=$(python3 "$top/scripts/cluster.py" login "${address[$1]}" "$3" "$4")
    [[ $reply == "$2"* ]] || fail "$1 answered $3 with $4: $reply; expected: $2"
}

# expect_within SECONDS HOST REPLY USER PASSWORD: the same, and the reply comes in this time.
expect_within() {
    local seconds=$1 began=$SECONDS
    shift
    expect "$@"
    ((SECONDS - began <= seconds)) || fail "$1 answered $3 after $((SECONDS - began)) s"
}

# lets_in HOST USER
lets_in() {
    [[ $(python3 "$top/scripts/cluster.py" login "${address[$1]}" "$2" pass) == +OK* ]]
}

test_database() {
    local host
    for host in "${hosts[@]}"; do
        eventually 20 "\"held\" logs in on $host" lets_in "$host" held
    done
    step 'stop the database'
    stop_database
    sleep 3
    for host in "${hosts[@]}"; do
        # Its password is remembered. That of "late" is not, since it has not logged in yet.
        expect "$host" '+OK' held pass
        expect "$host" '-ERR [SYS/TEMP]' held wrong
        expect "$host" '-ERR [SYS/TEMP]' late pass
    done
    start_database
    for host in "${hosts[@]}"; do
        eventually 20 "\"late\" logs in on $host" lets_in "$host" late
        expect "$host" '-ERR [AUTH]' held wrong
    done
}

# turns_away HOST: what the host answers to passwords that it does not remember while the database answers nothing. Each
# login waits for database_timeout. The rest of the 20 s is for a slow machine.
turns_away() {
    # Not the password of the step before: a wrong one is remembered for 3 s.
    expect_within 20 "$1" '-ERR [SYS/TEMP]' held bad
    expect_within 20 "$1" '-ERR [SYS/TEMP]' later pass
}

test_silence() {
    local host waiting=() it
    step "cut the database's network"
    cut database
    for host in "${hosts[@]}"; do
        turns_away "$host" &
        waiting+=("$!")
    done
    for it in "${waiting[@]}"; do
        wait "$it" || fail 'a host waits for the database'
    done
    for host in "${hosts[@]}"; do
        expect_within 20 "$host" '+OK' held pass
    done
    join database
    for host in "${hosts[@]}"; do
        eventually 60 "\"later\" logs in on $host" lets_in "$host" later
        expect "$host" '-ERR [AUTH]' held bad
    done
}

test_cut() {
    hold mail1 mail3
    step "cut mail1's network"
    cut mail1
    avoided mail1
    wait "$holder" || fail "no login after mail1's network was cut"
    join mail1
    eventually 60 'mail1 is back' is UP mail1
    eventually 90 'the copy of mail1 is complete' is_healed
}

test_power() {
    hold mail2 mail3
    step "take mail2's power away"
    power_off mail2
    avoided mail2
    wait "$holder" || fail "no login after mail2's power went"
    make_machine mail2
    start_glusterd mail2
    mount_mail mail2
    start_pop3d mail2
    eventually 60 'mail2 is back' is UP mail2
    eventually 90 'the copy of mail2 is complete' is_healed
}

# popbench_rounds: runs popbench by POP3S again and again, until the test is over. Its reports go into a file.
popbench_rounds() {
    while [[ ! -e $work/over ]]; do
        popbench sessions --address "${address[ending]}" --tls --insecure --users 'b{1..8}' --password pass \
            --clients 4 --duration 10s --json --quiet || true
    done >"$work/popbench.json"
}

test_cluster() {
    local users rounds event
    PATH=$top:$PATH
    step 'before'
    python3 "$top/scripts/cluster.py" use "${address[pass]}" "$work/journal" &
    users=$!
    popbench_rounds &
    rounds=$!
    sleep 5
    for event in drain kill disk database silence cut power; do
        "test_$event"
    done
    step 'after'
    sleep 5
    touch "$work/over"
    kill -TERM "$users"
    wait "$users" || fail 'the clients failed'
    wait "$rounds"
    python3 "$top/scripts/cluster.py" check "${address[pass]}" "$messages" "$work/journal" "$work/popbench.json"
}

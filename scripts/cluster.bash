# Sourced by scripts/cluster: machines made of namespaces, and the programs on them.
# shellcheck shell=bash disable=SC2154 # scripts/cluster sets top, work, hosts and storage

# The network. The configurations in scripts/haproxy name the same addresses of the hosts.
declare -A address=([client]=192.0.2.1 [pass]=192.0.2.5 [ending]=192.0.2.6 [monitor]=192.0.2.7 [database]=192.0.2.8
    [mail1]=192.0.2.11 [mail2]=192.0.2.12 [mail3]=192.0.2.13)
# The process that keeps a machine's namespaces. The machine's other processes end with it.
declare -A keeper=()

# How long a host waits for the database's answer.
database_timeout=3s

# How soon GlusterFS takes a host for lost. Its own values are 42 s and more, so that a short disturbance does no harm.
# Without the cache of attributes, a message that one host has delivered is seen by the next login on another.
volume_settings=('network.ping-timeout 5' 'cluster.quorum-type auto' 'performance.stat-prefetch off'
    'server.tcp-user-timeout 5' 'server.keepalive-time 2' 'server.keepalive-interval 1' 'server.keepalive-count 3'
    'client.tcp-user-timeout 5' 'client.keepalive-time 2' 'client.keepalive-interval 1' 'client.keepalive-count 3')

# eventually SECONDS WHAT COMMAND...: runs the command until it succeeds.
eventually() {
    local seconds=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not within $seconds s: $what"
        sleep 0.1
    done
}

# on MACHINE COMMAND...: runs the command there.
on() {
    local machine=$1
    shift
    nsenter --target "${keeper[$machine]}" --mount --net --uts --ipc --pid --wd=/ -- "$@"
}

# start MACHINE NAME COMMAND...: runs the command there in the background. Its output goes to the file NAME.log.
start() {
    local machine=$1 log=$work/$1/$2.log
    shift 2
    on "$machine" "$@" >>"$log" 2>&1 </dev/null &
}

# listens MACHINE PORT
listens() {
    (exec 3<>"/dev/tcp/${address[$1]}/$2") 2>/dev/null
}

# The bridge, with the client's address. The script is in a network of its own, so the bridge reaches nothing else.
make_network() {
    ip link set lo up
    ip link add lan type bridge
    ip address add "${address[client]}/24" dev lan
    ip link set lan up
}

# make_machine MACHINE: namespaces with an address on the network.
make_machine() {
    local machine=$1 up=$work/$1/up parent
    mkdir -p "$work/$machine"
    # bash waits for the children that processes leave when they end.
    # shellcheck disable=SC2016 # $1 and $2 are the arguments of the shell there
    unshare --mount --net --uts --ipc --pid --fork --kill-child --mount-proc bash -c '
        hostname "$1" && mount -t tmpfs run /run && mount -t tmpfs shm /dev/shm && ip link set lo up && echo >"$2"
        sleep infinity
        exit' bash "$machine" "$up" 2>/dev/null &
    parent=$!
    disown "$parent"
    eventually 20 "the namespaces of $machine" test -e "$up"
    rm "$up"
    # unshare itself is in the old namespace of processes, its child in the new one.
    keeper[$machine]=$(pgrep --parent "$parent")
    ip link add "$machine" type veth peer name eth0 netns "${keeper[$machine]}"
    ip link set "$machine" master lan up
    on "$machine" ip address add "${address[$machine]}/24" dev eth0
    on "$machine" ip link set eth0 up
}

# cut MACHINE and join MACHINE: takes its network away, and brings it back.
cut() {
    ip link set "$1" down
}
join() {
    ip link set "$1" up
}

# power_off MACHINE: ends it without a word to the network.
power_off() {
    cut "$1"
    kill -KILL "${keeper[$1]}"
    ip link delete "$1" 2>/dev/null || true
}

# start_glusterd HOST: GlusterFS, with its state, log and disk in directories of this host.
start_glusterd() {
    local host=$1
    mkdir -p "$work/$host"/{glusterd,log,disk} /var/lib/glusterd /var/log/glusterfs
    on "$host" mount --bind "$work/$host/glusterd" /var/lib/glusterd
    on "$host" mount --bind "$work/$host/log" /var/log/glusterfs
    on "$host" mkdir -p /run/gluster
    on "$host" glusterd
    eventually 30 "glusterd on $host" on "$host" gluster --mode=script pool list
}

# gluster WORD...: a command for GlusterFS, given on a host that runs.
gluster() {
    on "${hosts[-1]}" gluster --mode=script "$@" >>"$work/gluster.log" 2>&1 ||
        fail "gluster $*: $(tail -n 3 "$work/gluster.log")"
}

# make_volume: a volume with a copy of each file on each host's disk.
make_volume() {
    local host disks=() setting replicas=()
    for host in "${hosts[@]}"; do
        [[ $host == "${hosts[-1]}" ]] || gluster peer probe "${address[$host]}"
        disks+=("${address[$host]}:$work/$host/disk/mail")
    done
    eventually 30 'all hosts know each other' all_joined
    ((${#hosts[@]} == 1)) || replicas=(replica ${#hosts[@]})
    gluster volume create mail "${replicas[@]}" "${disks[@]}" force
    for setting in "${volume_settings[@]}"; do
        # shellcheck disable=SC2086 # a name and a value
        gluster volume set mail $setting
    done
    gluster volume start mail
}

all_joined() {
    local connected
    connected=$(on "${hosts[-1]}" gluster --mode=script pool list | grep -c 'Connected')
    ((connected == ${#hosts[@]}))
}

mount_mail() {
    [[ $storage == gluster ]] || return 0
    eventually 30 "the mail on $1" on "$1" mount -t glusterfs -o attribute-timeout=0 localhost:/mail \
        "$work/mail"
}

# as_postgres PROGRAM WORD...: a program of PostgreSQL's on the machine "database". It runs as its own user.
as_postgres() {
    local programs=(/usr/lib/postgresql/*/bin)
    on database setpriv --reuid postgres --regid postgres --clear-groups -- "${programs[-1]}/$1" "${@:2}"
}

# make_database: PostgreSQL with the accounts. Its user "pop3d" has a password, comes by TLS, and only reads accounts.
make_database() {
    local directory=$work/database
    make_machine database
    make_certificate "$directory" database
    openssl rand -hex 16 >"$work/database-password"
    chmod 600 "$work/database-password"
    cat >"$work/pop3d.toml" <<END
[[accounts]]
kind = "sql"
url = "postgres://pop3d@${address[database]}/mail"
tls-ca = "$directory/certificate.pem"
password-file = "$work/database-password"
query = "SELECT password FROM accounts WHERE name = :user"
# Short, so that the database is asked.
cache = "2s"
grace = "1h"
timeout = "$database_timeout"
END
    chown -R postgres:postgres "$directory"
    as_postgres initdb --pgdata="$directory/data" --auth=peer --no-sync --encoding=UTF8 --locale=C \
        >"$directory/initdb.log" 2>&1 || fail "initdb: $(tail -n 3 "$directory/initdb.log")"
    echo 'hostssl mail pop3d 192.0.2.0/24 scram-sha-256' >>"$directory/data/pg_hba.conf"
    start_database
    {
        echo "CREATE ROLE pop3d LOGIN PASSWORD '$(<"$work/database-password")';"
        echo 'CREATE DATABASE mail;'
        echo '\connect mail'
        python3 "$top/scripts/cluster.py" accounts
        echo 'GRANT SELECT ON accounts TO pop3d;'
    } | as_postgres psql --host="$directory" --no-psqlrc --quiet --set=ON_ERROR_STOP=1 postgres
}

start_database() {
    local directory=$work/database
    as_postgres postgres -D "$directory/data" -k "$directory" -c listen_addresses="${address[database]}" -c ssl=on \
        -c ssl_cert_file="$directory/certificate.pem" -c ssl_key_file="$directory/key.pem" \
        >>"$directory/postgres.log" 2>&1 </dev/null &
    eventually 30 'PostgreSQL' as_postgres pg_isready --host="$directory"
}

# stop_database: at once, without waiting for its clients.
stop_database() {
    as_postgres pg_ctl --pgdata="$work/database/data" --mode=immediate --wait stop >/dev/null
}

# start_pop3d HOST
start_pop3d() {
    local host=$1
    start "$host" pop3d "$top/pop3d" --config "$work/pop3d.toml" \
        --address "${address[$host]}" --pop3-port 110 --pop3s-port 995 \
        --tls-cert "$work/certificate.pem" --tls-key "$work/key.pem" \
        --proxy-from "${address[pass]}" --proxy-from "${address[ending]}" --proxy-tls --trusted "${address[client]}" \
        --mailbox "$work/mail/%u" --metrics "${address[$host]}:9110" \
        --peep-socket /run/pop3d.peep --log-file "$work/$host/pop3d.log"
    eventually 20 "pop3d on $host" listens "$host" 110
}

# start_haproxy MACHINE FILE: HAProxy with that file of scripts/haproxy. All clients here have one address, so the limit
# for its connections is raised.
start_haproxy() {
    local number lines=(-e "s|/etc/haproxy/pop3s.pem|$work/pop3s.pem|" -e 's/gt 100 /gt 1000000 /'
        -e 's|log /dev/log local0|log stdout format raw local0|')
    for ((number = ${#hosts[@]} + 1; number <= 3; number++)); do
        lines+=(-e "/server mail$number /d")
    done
    make_machine "$1"
    on "$1" mkdir -p /run/haproxy
    sed "${lines[@]}" "$top/scripts/haproxy/$2" >"$work/$1/haproxy.cfg"
    start "$1" haproxy haproxy -db -f "$work/$1/haproxy.cfg"
    eventually 20 "HAProxy on $1" listens "$1" 995
}

# start_prometheus: Prometheus, which watches all hosts, with the alerts of scripts/prometheus.
start_prometheus() {
    local host targets=()
    make_machine monitor
    for host in "${hosts[@]}"; do
        targets+=("\"${address[$host]}:9110\"")
    done
    cp "$top/scripts/prometheus/alerts.yml" "$work/monitor"
    sed "s/\"127.0.0.1:9110\"/$(IFS=,; echo "${targets[*]}")/" "$top/scripts/prometheus/prometheus.yml" \
        >"$work/monitor/prometheus.yml"
    start monitor prometheus prometheus --config.file="$work/monitor/prometheus.yml" \
        --storage.tsdb.path="$work/monitor/data"
    eventually 20 'Prometheus' listens monitor 9090
}

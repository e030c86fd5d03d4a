# Sourced by the scripts that start databases, behind server.bash: in the directory $data, on UNIX sockets only. The script
# defines the function `statements`, which writes the SQL of the accounts, and calls end_database at its end.
# shellcheck shell=bash

# The process of the database that runs.
database=''

end_database() {
    [[ -z $database ]] || { end_process "$database"; database=''; }
}

# An array, because the process id of a function in the background would be that of a shell.
unprivileged=(setpriv --reuid nobody --regid nogroup --clear-groups)

# until_it_does COMMAND...: waits until the command succeeds, for 30 s.
until_it_does() {
    local _
    for _ in {1..300}; do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "this does not succeed: $*"
}

# make_KIND: makes the database. Sets title, url, and Dovecot's driver and connect.
# shellcheck disable=SC2034,SC2154 # not every script wants each, and the script sets data
make_sqlite() {
    install -d -o nobody "$data/sqlite"
    { echo 'BEGIN;'; statements; echo 'COMMIT;'; } | "${unprivileged[@]}" sqlite3 "$data/sqlite/accounts.db"
    title=SQLite url=sqlite:$data/sqlite/accounts.db driver=sqlite connect=$data/sqlite/accounts.db
}
# shellcheck disable=SC2034
make_postgresql() {
    local programs socket=$data/pg
    programs=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
    install -d -o nobody "$socket"
    "${unprivileged[@]}" "$programs/initdb" --username=pop3d --auth=trust --no-sync -D "$socket/data" >/dev/null
    "${unprivileged[@]}" "$programs/postgres" -D "$socket/data" -k "$socket" -c listen_addresses= >"$socket/log" 2>&1 &
    database=$!
    until_it_does psql -q -h "$socket" -U pop3d -c 'SELECT 1' postgres
    { statements; echo 'ANALYZE accounts;'; } | psql -q -h "$socket" -U pop3d postgres
    title=PostgreSQL url=postgres://pop3d@${socket//\//%2F}/postgres
    driver=pgsql connect="host=$socket user=pop3d dbname=postgres maxconns=${connections:-16}"
}
# shellcheck disable=SC2034
make_mariadb() {
    local socket=$data/my/socket
    install -d -o nobody "$data/my"
    "${unprivileged[@]}" mariadb-install-db --no-defaults --datadir="$data/my/data" --auth-root-authentication-method=normal \
        --skip-test-db >/dev/null
    "${unprivileged[@]}" mariadbd --no-defaults --datadir="$data/my/data" --socket="$socket" --skip-networking \
        >"$data/my/log" 2>&1 &
    database=$!
    until_it_does mariadb -S "$socket" -u root -e 'SELECT 1'
    { echo 'CREATE DATABASE mail; USE mail;'; statements; } | mariadb -S "$socket" -u root
    title=MariaDB url="mysql://root@localhost/mail?socket=${socket//\//%2F}"
    driver=mysql connect="host=$socket user=root dbname=mail"
}

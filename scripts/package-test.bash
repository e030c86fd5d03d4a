# shellcheck shell=bash
# What scripts/package-test runs in the system that it has booted: each function fails if something is not as it has to be.

config=/etc/pop3d/pop3d.toml
conffiles=(-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)

# eventually COMMAND...: runs it until it succeeds, for half a minute at most.
eventually() {
    for _ in {1..100}; do
        "$@" && return
        sleep 0.3
    done
    return 1
}

install_package() {
    apt-get install --quiet --quiet --yes "${conffiles[@]}" "$1"
}

# Listens on port 110 as another POP3 server would.
take_port() {
    systemd-run --quiet --unit=other --service-type=exec systemd-socket-activate --listen=127.0.0.1:110 /bin/cat
    eventually grep -qs ':006E 00000000:0000 0A' /proc/net/tcp
}

port_is_told_taken() {
    ! pop3d check --config "$config" >/tmp/found || return
    grep '^error    POP3: .*: systemd-socket- has the port' /tmp/found
}

owners_and_modes() {
    diff - <(cd / && stat --format='%U:%G %a %n' etc/pop3d etc/pop3d/* etc/pop3d/accounts/users srv/mail var/lib/pop3d) <<END
root:root 755 etc/pop3d
pop3d:pop3d 750 etc/pop3d/accounts
root:root 644 etc/pop3d/peepclient.toml
root:root 644 etc/pop3d/pop3d.toml
root:pop3d 750 etc/pop3d/tls
pop3d:pop3d 640 etc/pop3d/accounts/users
pop3d:pop3d 750 srv/mail
pop3d:pop3d 750 var/lib/pop3d
END
}

# page_is_readable [SECTION] NAME
page_is_readable() {
    local text
    text=$(MANWIDTH=100 man --warnings "$@" 2>/tmp/warnings)
    # A table that is wider than the terminal is no fault of the page.
    if ((${#text} < 1000)) || grep -v -e "cannot adjust line" -e "can.t break line" /tmp/warnings; then
        return 1
    fi
}

completes_in_bash() {
    set +eu # not for code of others
    # shellcheck disable=SC1091 # it is in the booted system
    source /usr/share/bash-completion/bash_completion
    _completion_loader pop3d
    COMP_WORDS=(pop3d --pop3s) COMP_CWORD=1
    _pop3d pop3d --pop3s pop3d
    [[ ${COMPREPLY[*]} == --pop3s-port ]]
}

completes_in_zsh() {
    # shellcheck disable=SC2016 # a variable of zsh
    zsh -f -c 'autoload -U compinit && compinit -D && [[ $_comps[pop3d] == _pop3d ]] && autoload +X _pop3d'
}

completes_in_fish() {
    fish -c 'complete -C "pop3d --pop3s"' | grep '^--pop3s-port'
}

# fetch_message [CURL-OPTION...]
fetch_message() {
    curl --silent --show-error "$@" pop3s://ana:secret@localhost/1 | grep '^Hello, Ana!'
}

wrong_password_is_refused() {
    ! curl --silent --insecure pop3s://ana:wrong@localhost/
}

only_root_is_admin() {
    [[ $(peepclient users) == ana ]] && ! su nobody -s /bin/sh -c 'peepclient users'
}

# issue_certificate NAME: makes one as if an authority had, and has certbot's hook bring it to the server.
issue_certificate() {
    mkdir -p /root/live
    openssl req -x509 -newkey ed25519 -nodes -subj "/CN=$1" -addext subjectAltName=DNS:localhost -days 30 \
        -keyout /root/live/privkey.pem -out /root/live/fullchain.pem
    RENEWED_LINEAGE=/root/live /usr/share/pop3d/certbot/pop3d /etc/pop3d/tls
}

# Checks and reloads the configuration as an admin does after a change.
reload_configuration() {
    pop3d check --config "$config"
    systemctl reload pop3d
}

name_certificate() {
    sed -i -e 's/^tls-self-signed/# &/' -e 's/^# \(tls-cert\|tls-key\)/\1/' -e 's/^# timeout = 600/timeout = 700/' "$config"
    reload_configuration
}

# The log file needs a restart, as the log says.
name_log_file() {
    sed -i -e 's/^# log-file/log-file/' "$config"
    reload_configuration
    eventually bash -c 'journalctl --unit=pop3d --lines=5 | grep "need a restart: .*log-file"'
    systemctl restart pop3d
}

certificate_is() {
    openssl s_client -connect 127.0.0.1:995 </dev/null 2>/dev/null | grep "^subject=CN = $1\$"
}

# A session on port 110.
open_session() {
    exec 3<>/dev/tcp/127.0.0.1/110
    expect_ok
    say 'USER ana'
    say 'PASS secret'
}

say() {
    printf '%s\r\n' "$1" >&3
    expect_ok
}

expect_ok() {
    local reply=''
    IFS= read -r -t 20 reply <&3 || true
    [[ $reply == +OK* ]] || { echo "the reply is '$reply'"; return 1; }
}

session_goes_on_through_a_reload() {
    open_session
    systemctl reload pop3d
    say NOOP
    say QUIT
}

# A session's line gets into the file that logrotate has made.
log_is_rotated() {
    logrotate --force /etc/logrotate.d/pop3d
    [[ -s /var/log/pop3d/pop3d.log.1 ]]
    eventually session_is_logged
}

session_is_logged() {
    open_session
    say QUIT
    grep -q 'login: user="ana"' /var/log/pop3d/pop3d.log
}

client_starts_the_server() {
    open_session
    say QUIT
    systemctl is-active --quiet pop3d
}

# Clients connect without a pause. Each has to be greeted.
no_client_is_refused_while_the_server_restarts() {
    local clients=0
    (
        for _ in {1..5}; do
            systemctl reset-failed pop3d # or systemd finds these too many restarts
            systemctl restart pop3d
        done
        touch /run/restarted
    ) &
    while [[ ! -e /run/restarted ]]; do
        exec 3<>/dev/tcp/127.0.0.1/110
        expect_ok
        exec 3<&-
        clients=$((clients + 1))
    done
    echo "$clients clients"
    ((clients > 100))
}

# upgrade_under_a_session PACKAGE: the session has marked a message and not said QUIT, so the message stays.
upgrade_under_a_session() {
    local before
    before=$(systemctl show --value --property=MainPID pop3d)
    open_session
    say 'DELE 1'
    install_package "$1"
    [[ $(systemctl show --value --property=MainPID pop3d) != "$before" ]]
    [[ -f /srv/mail/ana/1.eml ]]
}

changed_configuration_is_kept() {
    grep '^timeout = 700' "$config"
    tail -1 "$config.dpkg-dist" | grep 'later version'
}

nothing_listens() {
    ! ss --no-header --listening --tcp --numeric | grep -E ':(110|995|2110) '
}

nothing_is_left() {
    ! find /etc /lib /run /usr /var -xdev -path /var/cache -prune -o -name '*pop3d*' -print | grep .
}

mail_is_kept() {
    [[ $(stat --format=%U /srv/mail /srv/mail/ana | uniq) == pop3d && -f /srv/mail/ana/1.eml ]]
}

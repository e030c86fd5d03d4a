//! Tests of the whole server, one module per group.

// The users file, `pop3d passwd`, AUTH and APOP.
mod account_programs;
mod accounts;
// Sessions, bans and draining by PEEP 1.1.
mod admin;
// `pop3d check-user`.
mod check_user;
// Several clients of one user.
mod busy;
// Broken connections, servers that are killed, mail that vanishes.
mod anomalies;
// certbot's directories and the deploy hook.
mod certbot;
// Real client programs, from curl to fetchmail, with unusual messages.
mod clients;
// The configuration file, `pop3d show` and `pop3d check`.
mod config;
// Rights that the server gives up, rights of transforms, and the maildrop's lock.
mod confinement;
// What a deletion does, and how it is undone.
mod deletes;
// Dialogues in files, one for each rule of POP3.
mod dialogues;
// `pop3d doctor`.
mod doctor;
// Mail that expires.
mod expiry;
// Who fetched what.
mod fetches;
// The filter for fail2ban.
mod fail2ban;
// System calls that fail, full disks, clocks that jump, kills under load.
mod faults;
// The limit of file sizes.
mod file_size_limit;
// Files that cannot be read or written for ever.
mod frozen_files;
// The fuzz targets with their seeds.
mod fuzz;
// Sessions that act with their users' ids.
mod owners;
// Limits by address and before login, and slow readers.
mod guard;
// The real server, clients and mail for the other modules.
mod harness;
// The client programs against hostile servers.
mod hostile;
// The largest numbers of connections, of descriptors and of memory.
mod limits;
// The default admin of a server that runs as root.
mod local_admin;
// Unique-ids that Dovecot and Courier gave.
mod given_ids;
// Paths of maildrops: templates, home directories, symbolic links, rules for names.
mod locations;
// The log and the list of addresses when they cannot be written.
mod log;
// Logins and the lock of the maildrop.
mod logins;
// Maildrops on disk, and files that change during a session.
mod maildrops;
// A real Dovecot on the same Maildir.
mod beside_dovecot;
// Maildirs that other programs use, too.
mod neighbours;
// The commands and tables of the manual, and `pop3d help`.
mod manual;
// Maildrops that are mbox files, beside procmail.
mod mboxes;
// Proxies in front of the server: the PROXY protocol.
mod proxy;
// Random events, compared with a naive model of RFC 1939.
mod model;
// Link-local addresses and clients on other machines.
mod namespaces;
// Messages, compared octet by octet with a naive reference.
mod octets;
// Metrics over HTTP.
mod metrics;
// Accounts of PAM.
#[cfg(feature = "pam")]
mod pam;
// A users file that a process of its own reads.
mod separate_users_file;
// The systemd units of the Debian package.
mod package;
// PEEP, its counters and its settings.
mod peep;
mod peep_socket;
// `peepclient`: prompt, filter, single commands, exit statuses.
mod peepclient;
// `peepclient` with the commands of PEEP 1.1, JSON and profiles.
mod peepclient_1_1;
// POP3 where a dialogue is not enough.
mod pop3;
// The load generator against a scripted server.
mod popbench;
// Flags, errors at the start, log and end of the program.
mod programs;
// A configuration that is read again while the server runs.
mod reload;
// Scripts that people start by hand.
mod scripts;
// `peepclient` with several servers.
mod several_servers;
// Maildrops that other programs use, and file systems without stable inode numbers.
mod shared_maildrops;
// Accounts with a limit of sessions of their own.
mod session_limits;
// Several certificates, chosen by the name that the client asks for.
mod sni;
// Accounts in databases.
mod sql;
// The state directory.
mod state;
// Sockets from systemd and notifications for it.
mod systemd;
// STLS, POP3S and PEEP by TLS.
mod tls;
// Scripted TLS servers for the tests of the clients.
mod tls_peer;
// `peepclient top` on a real terminal.
mod top;
// An admin's session as the report shows it.
mod transcript;
// Transforms: output, environment and failures.
mod transform;
// What a transform cannot do to the server and to other programs.
mod transform_confinement;
// The transforms in scripts/.
mod transform_scripts;
// Transforms whose output has the sizes that clients are told.
mod transform_sizes;
// The log as an operator reads it: reasons of refused logins, formats, levels.
mod watched;
// Faults that a tester orders.
mod ordered_faults;
// `pop3d test`.
mod trial;

//! Tests of the whole server, one module per group.

// The users file, AUTH, APOP, and what is announced of them.
mod accounts;
// What goes wrong outside the server: connections, processes, disks.
mod anomalies;
// certbot's directories, and its deploy hook.
mod certbot;
// Files that are never read and never written.
mod frozen;
// Real client programs, from curl to fetchmail, each with the same odd messages.
mod clients;
// Its filter for fail2ban.
mod fail2ban;
// What strangers may do.
mod guard;
// The configuration file, and the settings that come of it.
mod config;
// System calls that fail, full disks, clocks that jump, kills under load.
mod faults;
// The fuzz targets with their seeds.
mod fuzz;
// What the server and its transforms give up, and the lock that other servers see.
mod confinement;
// What a transform cannot do to the server and to the machine.
mod fences;
// The real server, clients and mail.
mod harness;
// Several certificates, chosen by the name that the client asks for.
mod sni;
// A configuration that is read again while the server runs.
mod reload;
// Dialogues as data, one for each rule.
mod dialogues;
// What hostile servers cannot do to the client programs.
mod hostile;
// Link-local addresses and clients on other machines.
mod namespaces;
// The most of everything: connections, places, descriptors.
mod limits;
// The default admin of a server of root.
mod local_admin;
// Where maildrops are: templates, homes, links, rules for names.
mod locations;
// Who is let in, and the maildrop's lock.
mod logins;
// The log and the list of ports, when nothing takes them.
mod log;
// The manual's commands and tables, and `pop3d help`.
mod manual;
// Maildrops on disk, and what happens to them under a session.
mod maildrops;
// Messages to the octet, beside a naive reference.
mod octets;
// Metrics over HTTP.
mod metrics;
// What clients, mail programs and a dying server do at random, beside a naive model of RFC 1939.
mod model;
// PEEP as the server speaks it, its counters and settings.
mod peep;
// POP3's commands and their timer, where it takes more than a dialogue.
mod pop3;
// The admin client: prompt, filter, one-shot, exit statuses.
mod peepclient;
// The admin client with the commands of PEEP 1.1, JSON, several servers.
mod newer_commands;
// The load generator against a scripted server.
mod popbench;
// Maildrops that other programs use at the same time, and file systems that number their files anew.
mod shared_maildrops;
// The program itself: flags, refusals, log and end.
mod programs;
// Files that may not become larger.
mod sizes;
// The scripts that people start by hand.
mod scripts;
// What outlives a server.
mod state;
// Sockets from systemd, and what it is told.
mod systemd;
// STLS, POP3S, PEEP over TLS, and what is refused without.
mod tls;
// What clients by TLS are tested against.
mod tls_peer;
// Messages through a program.
mod transform;
// The report's admin session, word for word.
mod transcript;
// What an operator sees: the reasons of refused logins, formats of the log, metrics.
mod watched;

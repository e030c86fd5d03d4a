//! The table of phrases, one for each command, with their examples and errors.

use crate::peep::ErrorCode;

/// The phrase for one command.
pub(in crate::peep::client) struct Phrase {
    /// The fixed words, then the names of the arguments.
    pub(in crate::peep::client) text: &'static str,
    /// How the command begins on the wire; [`HELP`] for the phrase that is not sent.
    pub(in crate::peep::client) wire: &'static str,
    /// What the command does, in a few words for `help`.
    pub(in crate::peep::client) meaning: &'static str,
}

/// All phrases: first those of version 1.0, in the order of `help` in the report.
pub(super) const PHRASES: [Phrase; 55] = [
    phrase("capa", "cap?", "list the server's extensions and limits"),
    phrase("quit", "q", "end the session (also: exit)"),
    phrase("maildir", "m?", "show the mail directory"),
    phrase("timeout", "t?", "show the idle timeout in seconds, 0 is none"),
    phrase("users", "u?", "list the accounts"),
    phrase("help", HELP, "list the commands, or: help <command>"),
    phrase("retrieved bytes", "rb?", "octets sent to POP3 clients"),
    phrase("retrieved emails", "re?", "messages retrieved"),
    phrase("max connections", "c?", "show the limit of open connections"),
    phrase("set maildir <path>", "m=", "change the mail directory"),
    phrase("set timeout <value>", "t=", "change the idle timeout in seconds"),
    phrase("delete user <username>", "u-", "remove an account, its mail stays"),
    phrase("current connections amount", "cc?", "POP3 connections that are open now"),
    phrase("current logged users", "cu?", "list the users who are logged in now"),
    phrase("removed emails amount", "xe?", "messages removed"),
    phrase("add user <username> <password>", "u+", "add an account"),
    phrase("set max connections <value>", "c=", "change the limit of open connections"),
    phrase("all time connection amount", "hc?", "POP3 connections since the start"),
    phrase("all time logged amount", "hu?", "logins since the start"),
    phrase("sessions", "w?", "list the open connections"),
    phrase("kick <id>", "k=", "end a connection, nothing is removed"),
    phrase("kick user <username>", "ku=", "end the connections of a user"),
    phrase("kick address <net>", "ka=", "end the connections from a network"),
    phrase("ban <net> <seconds>", "b+", "refuse clients of a network; 0: without end"),
    phrase("unban <net>", "b-", "end a ban or a penalty"),
    phrase("bans", "b?", "list the bans and penalties"),
    phrase("stats", "s?", "list all counters and settings"),
    phrase("user <username>", "i?", "show an account and its maildrop"),
    phrase("test login <username> <password>", "at", "tell whether a login would succeed"),
    phrase("errors", "e?", "show the log's last warnings and errors"),
    phrase("log level", "l?", "show how much is logged"),
    phrase("set log level <level>", "l=", "log at error, warn, info, debug or trace"),
    phrase("drain", "d= 1", "turn new POP3 clients away"),
    phrase("resume", "d= 0", "let new POP3 clients in again"),
    phrase("draining", "d?", "show 1 if new POP3 clients are turned away"),
    phrase("reload", "r", "read the server's configuration again"),
    phrase("follow", "f", "show events as they happen"),
    phrase("follow <username>", "f", "show the events of one user"),
    phrase("metrics", "mt?", "show all counters as OpenMetrics text"),
    phrase("expire", "ex", "remove expired messages now"),
    phrase("expire --dry-run", "ex?", "tell which messages have expired"),
    phrase("deletes <username>", "dl?", "what sessions deleted and is still kept"),
    phrase("undelete <session>", "ud", "bring back what a session deleted"),
    phrase("undelete <username> since <span>", "uds", "the same of all since then, as 2h"),
    phrase("report", "rp?", "who fetched what"),
    phrase("report <username>", "rp?", "what one user fetched"),
    phrase("report --days", "rd?", "the octets that users fetched by day"),
    phrase("report --days <username>", "rd?", "the octets that one user fetched by day"),
    phrase("fault add <who> <what> <count> <seconds>", "ft+", "make sessions fail, for tests"),
    phrase("fault clear", "ft-", "end all faults"),
    phrase("fault clear <fault>", "ft-", "end one fault"),
    phrase("faults", "ft?", "list the faults in force"),
    phrase("set transform <username> <on|off>", "tr=", "transform a user's mail, or not"),
    phrase("transform exceptions", "tr?", "list the users with transform off"),
    phrase("transform test <username> <n>", "tt", "show what it does to a message"),
];

/// How many phrases version 1.0 has.
pub(super) const OF_VERSION_1_0: usize = 19;

/// An example for each phrase whose arguments need one.
pub(super) const EXAMPLES: [(&str, &str); 22] = [
    ("set maildir <path>", "set maildir /var/mail"),
    ("set timeout <value>", "set timeout 600"),
    ("delete user <username>", "delete user bob"),
    ("add user <username> <password>", "add user bob hunter2"),
    ("set max connections <value>", "set max connections 500"),
    ("kick <id>", "kick 17"),
    ("kick user <username>", "kick user bob"),
    ("kick address <net>", "kick address 192.0.2.0/24"),
    ("ban <net> <seconds>", "ban 192.0.2.0/24 1h"),
    ("unban <net>", "unban 192.0.2.0/24"),
    ("user <username>", "user bob"),
    ("test login <username> <password>", "test login bob hunter2"),
    ("set log level <level>", "set log level debug"),
    ("follow <username>", "follow bob"),
    ("deletes <username>", "deletes bob"),
    ("undelete <session>", "undelete bob:1795831201.17"),
    ("undelete <username> since <span>", "undelete bob since 2h"),
    ("report <username>", "report bob"),
    ("fault add <who> <what> <count> <seconds>", "fault add bob no-uidl 1 60"),
    ("fault clear <fault>", "fault clear 3"),
    ("set transform <username> <on|off>", "set transform bob off"),
    ("transform test <username> <n>", "transform test bob 1"),
];

/// The errors of each command that has any of its own, by its commencement.
pub(super) const ERRORS: [(&str, &[ErrorCode]); 21] = [
    ("u+", &[ErrorCode::UserExists, ErrorCode::UsersNotWritten]),
    ("u-", &[ErrorCode::NoSuchUser, ErrorCode::UsersNotWritten]),
    ("c=", &[ErrorCode::BadMaxConnections]),
    ("m=", &[ErrorCode::BadMaildir]),
    ("t=", &[ErrorCode::BadTimeout]),
    ("k=", &[ErrorCode::NoSuchConnection]),
    ("ku=", &[ErrorCode::NoSuchConnection]),
    ("ka=", &[ErrorCode::NoSuchConnection]),
    ("b-", &[ErrorCode::NoSuchConnection]),
    ("i?", &[ErrorCode::NoSuchUser]),
    ("r", &[ErrorCode::BadConfiguration]),
    ("rp?", &[ErrorCode::NoSuchUser]),
    ("rd?", &[ErrorCode::NoSuchUser]),
    ("dl?", &[ErrorCode::NoSuchUser, ErrorCode::BadMaildrop]),
    ("ud", OF_UNDELETE),
    ("uds", OF_UNDELETE),
    ("ft+", &[ErrorCode::NoSuchUser, ErrorCode::NoFaults]),
    ("ft-", &[ErrorCode::NoFaults, ErrorCode::NoSuchFault]),
    ("ft?", &[ErrorCode::NoFaults]),
    ("tr=", &[ErrorCode::NoSuchUser, ErrorCode::NoTransform]),
    ("tt", &[ErrorCode::NoSuchUser, ErrorCode::BadMaildrop, ErrorCode::NoTransform, ErrorCode::NoSuchMessage]),
];

const OF_UNDELETE: &[ErrorCode] =
    &[ErrorCode::NoSuchUser, ErrorCode::NoSuchDeletion, ErrorCode::MaildropInUse, ErrorCode::BadMaildrop];

const fn phrase(text: &'static str, wire: &'static str, meaning: &'static str) -> Phrase {
    Phrase { text, wire, meaning }
}

/// The commencement in the table of the one phrase that is not sent to the server.
pub(super) const HELP: &str = "";

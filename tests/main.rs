//! Tests of the whole server, one module per group.

// Real client programs, from curl to fetchmail, each with the same odd messages.
mod clients;
// The real server, clients and mail.
mod harness;
// Dialogues as data, one for each rule.
mod dialogues;
// POP3 where it takes more than a dialogue.
mod pop3;
// The admin client: prompt, filter, one-shot, exit statuses.
mod peepclient;

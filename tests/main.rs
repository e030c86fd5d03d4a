//! Tests of the whole server, one module per group.

// The real server, clients and mail.
mod harness;
// POP3 where it takes more than a dialogue.
mod pop3;

//! `pop3d`: a POP3 server for directories of mail.
pub mod peep;
pub mod wire;

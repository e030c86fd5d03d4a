//! The server's side of PEEP.

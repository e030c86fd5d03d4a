//! The client's side of PEEP.

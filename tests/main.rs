//! Tests of the whole server, one module per group.

//! The admin client program.
fn main() {}

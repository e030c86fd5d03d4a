//! Prints an answer while it is read, so that only one line of it is in memory.

use std::io::Write;

use super::connection::Connection;
use super::listing::{Listing, Style};
use super::{Failure, csv, json, output, phrases, print};
use crate::peep::{Answer, Command, ErrorCode, Form};
use crate::printable::printable;

/// How one answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) style: Style,
    /// The first line is `OK! …` or `ERROR! …`, as in a conversation.
    pub(super) labelled: bool,
}

impl Look {
    /// The first line of an answer.
    pub(super) fn first_line(self, command: &Command, answer: &Answer) -> String {
        match (self.style, answer) {
            (Style::Json, Answer::Lines(_)) => String::new(),
            (Style::Json, Answer::Done) if command.form() == Form::Events => String::new(),
            (Style::Json, answer) => json::answer(command, &phrases::key(command), answer) + "\n",
            (_, Answer::Value(value)) if matches!(command, Command::TestLogin { .. }) => {
                output::tested(value, self.labelled)
            }
            (_, answer) if self.labelled => output::labelled(answer),
            (Style::Csv, Answer::Value(value)) => {
                csv::row(&[phrases::key(command)]) + &csv::row(&[printable(value).into_owned()])
            }
            (_, answer) => output::bare(answer),
        }
    }
}

/// Reads the rest of an answer and prints all of it. Returns the error that the server answered.
pub(super) fn show(
    command: &Command,
    answer: &Answer,
    server: &mut Connection,
    look: Look,
    out: &mut impl Write,
) -> Result<Option<ErrorCode>, Failure> {
    if let Answer::Error(code) = answer {
        // Without labels the error is not an answer: it belongs on standard error.
        if look.labelled || look.style == Style::Json {
            print(out, &look.first_line(command, answer))?;
        }
        return Ok(Some(*code));
    }
    print(out, &look.first_line(command, answer))?;
    if let Answer::Lines(count) = *answer {
        let mut listing = Listing::new(command, look.style);
        let shown = lines(count, &mut listing, server, out);
        match shown {
            Ok(()) => print(out, &listing.end())?,
            Err(failure @ Failure::Output(_)) => return Err(failure),
            Err(failure) => {
                print(out, &listing.broken_off(&failure.reason()))?; // what has come is shown
                return Err(failure);
            }
        }
    }
    Ok(None)
}

fn lines(count: u64, listing: &mut Listing, server: &mut Connection, out: &mut impl Write) -> Result<(), Failure> {
    out.write_all(listing.begin().as_bytes()).map_err(Failure::Output)?;
    for _ in 0..count {
        if server.is_drained() {
            out.flush().map_err(Failure::Output)?; // the next line may take a while
        }
        let line = server.line()?;
        let text = listing.line(&line).map_err(|_| server.nonsense(line))?;
        out.write_all(text.as_bytes()).map_err(Failure::Output)?;
    }
    Ok(())
}

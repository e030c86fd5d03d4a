//! `top`: the server's rates, sessions and events on a terminal, and the admin's keys.
//!
//! Two threads (`feed`) ask the server; the main thread reads keys (`keys`), changes the `model` and draws it (`view`).

mod columns;
mod feed;
mod keys;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;

use super::{Failure, Options};
use feed::{Feed, Update};
use model::Model;

/// How long the program waits for a key before it looks at what the server has sent.
const LOOK: Duration = Duration::from_millis(50);

/// Shows the server until the admin has seen enough, a signal ends the program, or the server is lost.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::Usage("top needs a terminal".to_owned()));
    }
    let feed = Feed::start(options)?;
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGHUP, SIGINT, SIGTERM] {
        let value = usize::try_from(number).unwrap_or_default();
        signal_hook::flag::register_usize(number, Arc::clone(&signal), value).map_err(Failure::Terminal)?;
    }
    let outcome = {
        let mut screen = Screen::new().map_err(Failure::Terminal)?;
        watch(&mut screen.0, &mut Model::new(&feed.server), &feed, &signal)
    };
    let caught = signal.load(Ordering::Relaxed);
    if let Some(number) = i32::try_from(caught).ok().filter(|&number| number != 0) {
        // The terminal is as it was, so the program can end as if it had not caught the signal.
        let _ = emulate_default_handler(number);
    }
    outcome
}

fn watch(terminal: &mut DefaultTerminal, model: &mut Model, feed: &Feed, signal: &AtomicUsize) -> Result<(), Failure> {
    while signal.load(Ordering::Relaxed) == 0 {
        terminal.draw(|frame| view::draw(frame, model)).map_err(Failure::Terminal)?;
        // A signal interrupts the wait.
        let has_key = event::poll(LOOK).or_else(|error| match error.kind() {
            io::ErrorKind::Interrupted => Ok(false),
            _ => Err(Failure::Terminal(error)),
        })?;
        if has_key
            && let Event::Key(key) = event::read().map_err(Failure::Terminal)?
            && let Some(wish) = keys::pressed(model, key)
        {
            match wish {
                keys::Wish::End => return Ok(()),
                keys::Wish::Ask(request) => feed.ask(request),
            }
        }
        take_updates(model, &feed.updates)?;
    }
    Ok(())
}

/// Puts everything that the server has sent into the model.
fn take_updates(model: &mut Model, updates: &Receiver<Update>) -> Result<(), Failure> {
    loop {
        match updates.try_recv() {
            Ok(Update::Lost(failure)) => return Err(failure),
            Ok(update) => model.take(update),
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => return Err(Failure::Printed(3)),
        }
    }
}

/// The terminal, which is as it was before when this is dropped. If the program panics, the hook of `ratatui` does that
/// before the message is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn new() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

//! `top`: the server's rates, sessions and events on a terminal, and the admin's keys.
//!
//! Two threads (`feed`) ask the server; the main thread reads keys (`keys`), changes the `model` and draws it (`view`).

pub(super) mod columns;
mod feed;
mod keys;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::Mutex;
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::{Failure, Options};
use feed::{Feed, Update};
use model::Model;

/// How long the program waits for a key before it looks at what the server has sent.
const LOOK: Duration = Duration::from_millis(50);

/// How long a signal waits for the program to finish a write to the terminal. A stopped terminal can block the write.
const LONGEST_DRAWING: Duration = Duration::from_secs(1);

/// Shows the server until the admin has seen enough, a signal ends the program, or the server is lost.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::Usage("top needs a terminal".to_owned()));
    }
    let feed = Feed::start(options)?;
    let mut screen = Screen::new().map_err(Failure::Terminal)?;
    end_at_signals().map_err(Failure::Terminal)?;
    watch(&mut screen.0, &mut Model::new(&feed.server), &feed)
}

/// Held while the program writes to the terminal.
static DRAWING: Mutex<()> = Mutex::new(());

/// Starts a thread that restores the terminal and ends the program when a signal arrives. The main thread cannot do that:
/// once the terminal has been closed, crossterm's `poll` reads from it for ever.
fn end_at_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let end = move || {
        for signal in signals.forever() {
            let _drawing = DRAWING.try_lock_for(LONGEST_DRAWING);
            let _ = execute!(io::stdout(), Show);
            let _ = ratatui::try_restore();
            // The terminal is as it was, so the program can end as if it had not caught the signal.
            let _ = emulate_default_handler(signal);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(end)?;
    Ok(())
}

fn watch(terminal: &mut DefaultTerminal, model: &mut Model, feed: &Feed) -> Result<(), Failure> {
    loop {
        {
            let _drawing = DRAWING.lock();
            terminal.draw(|frame| view::draw(frame, model)).map_err(Failure::Terminal)?;
        }
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

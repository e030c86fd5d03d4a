//! The progress line on a terminal during a run.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::termios::tcgetwinsize;

use super::options::{Extent, Plan, Workload};
use super::run::Run;

/// The time between two updates: short enough to look alive, long enough to cost next to nothing.
const REDRAW: Duration = Duration::from_millis(250);
const BAR_WIDTH: usize = 24;

/// The columns of a terminal whose width is unknown.
const WIDTH: usize = 80;

pub(super) fn wanted(plan: &Plan) -> bool {
    !plan.quiet && stderr().is_terminal()
}

/// Redraws until `finished` is disconnected, then wipes the line.
pub(super) fn show(run: &Run, label: &str, finished: &Receiver<()>) {
    while finished.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
        let tally = run.tally.lock();
        let (sessions, errors) = (tally.sessions, tally.failed());
        drop(tally);
        let elapsed = run.began.elapsed().as_secs_f64();
        let megabytes = run.received.load(Ordering::Relaxed) as f64 / 1e6;
        let bar = bar(done(run.plan, elapsed, sessions + errors));
        let line = format!(
            "{label}{bar} {elapsed:5.1} s  {errors} errors  {sessions} sessions  {:.0}/s  {:.1} MB/s",
            sessions as f64 / elapsed,
            megabytes / elapsed,
        );
        // A line that wraps would not be overwritten by the next one.
        eprint!("\r{:.*}\x1b[K", width() - 1, line);
    }
    eprint!("\r\x1b[K");
}

/// The terminal's columns.
fn width() -> usize {
    tcgetwinsize(stderr()).map(|size| size.ws_col.into()).ok().filter(|&columns| columns > 0).unwrap_or(WIDTH)
}

/// The part of the run that is over, from 0 to 1.
fn done(plan: &Plan, elapsed: f64, sessions: u64) -> f64 {
    let part = match plan.extent {
        Extent::For(duration) => elapsed / duration.as_secs_f64(),
        Extent::Once if plan.workload == Workload::Idle => elapsed / plan.hold.as_secs_f64(),
        Extent::Once => sessions as f64 / plan.clients as f64,
        Extent::Count(count) => sessions as f64 / count as f64,
    };
    part.clamp(0.0, 1.0)
}

fn bar(part: f64) -> String {
    let filled = (part * BAR_WIDTH as f64) as usize;
    format!("[{:<BAR_WIDTH$}]", "=".repeat(filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_progress() {
        assert_eq!(bar(0.0), format!("[{}]", " ".repeat(BAR_WIDTH)));
        assert_eq!(bar(1.0), format!("[{}]", "=".repeat(BAR_WIDTH)));
        assert_eq!(bar(0.5).matches('=').count(), BAR_WIDTH / 2);
    }
}

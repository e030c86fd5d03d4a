//! `ft+`, `ft-` and `ft?`: faults that a tester orders.

use std::time::Instant;

use super::Session;
use crate::faults::{Faults, InForce, Order, What, Who};
use crate::peep::{ErrorCode, FaultLine, Reply};

impl Session<'_> {
    /// `ft+`: orders a fault. Answers its number.
    pub(super) fn add_fault(&self, who: &str, what: What, count: u32, seconds: u32) -> Result<Reply, ErrorCode> {
        let faults = self.allowed_faults()?;
        let who = match Who::called(who) {
            Who::User(name) => {
                let user = self.shared.users.user_called(&name).ok_or(ErrorCode::NoSuchUser)?;
                Who::User(user.as_str().to_owned())
            }
            who => who,
        };
        let times = format!("count {count}, seconds {seconds}");
        let change = format!("fault {what} for {:?}, {times}", who.to_string());
        let id = faults.add(Order { who, what, count, seconds }, Instant::now());
        self.log_change(format_args!("{change}, number {id}"));
        Ok(Reply::Value(id.to_string()))
    }

    /// `ft-`: clears a fault, or all. Answers how many.
    pub(super) fn clear_faults(&self, id: Option<u64>) -> Result<Reply, ErrorCode> {
        let cleared = self.allowed_faults()?.clear(id, Instant::now());
        match id {
            Some(_) if cleared == 0 => return Err(ErrorCode::NoSuchFault),
            Some(id) => self.log_change(format_args!("fault {id} cleared")),
            None => self.log_change(format_args!("faults cleared: {cleared}")),
        }
        Ok(Reply::Value(cleared.to_string()))
    }

    /// `ft?`: the faults in force.
    pub(super) fn faults(&self) -> Result<Reply, ErrorCode> {
        let in_force = self.allowed_faults()?.in_force(Instant::now());
        Ok(Reply::Lines(in_force.into_iter().map(|fault| line(fault).to_string()).collect()))
    }

    fn allowed_faults(&self) -> Result<&Faults, ErrorCode> {
        self.shared.faults.as_ref().ok_or(ErrorCode::NoFaults)
    }
}

fn line(InForce { id, order, left, time_left, given }: InForce) -> FaultLine {
    FaultLine {
        id,
        who: order.who.to_string(),
        what: order.what.to_string(),
        left: left.map(Into::into),
        // Rounded up, so that a fault in force has not 0 s left.
        seconds_left: time_left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
        given,
    }
}

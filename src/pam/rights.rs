//! The rights that the monitor and its workers keep.
//!
//! Modules of PAM that run as root read files of root, change to a user's ids for a program, keep files for each user (such
//! as the failures that pam_faillock counts), and report to the kernel's audit log. They need no other right of root's: they
//! mount nothing, bind no ports, load no modules of the kernel, and look into no other process.

use landlock::{AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities that modules of PAM use.
const NEEDED: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Gives up all other rights, as far as the kernel lets this process. What it cannot give up, it never had or needs more
/// rights to give up than it has.
pub(super) fn keep_those_of_workers() {
    let _ = forbid_listening();
    let all = CapabilitySet::all();
    for capability in all.difference(NEEDED).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    if let Ok(sets) = capabilities(None) {
        let [effective, permitted] = [sets.effective, sets.permitted].map(|set| set.intersection(NEEDED));
        let _ = set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() });
    }
}

/// Forbids to bind TCP ports. A process without CAP_SYS_ADMIN could do that only if it also gave up programs with set-uid
/// bits, which modules need then.
fn forbid_listening() -> Result<(), landlock::RulesetError> {
    let rules = Ruleset::default().handle_access(AccessNet::BindTcp)?.create()?;
    rules.no_new_privs(false).restrict_self().map(drop)
}

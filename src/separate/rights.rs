//! The rights that the monitor and its workers keep.

use landlock::{AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up all other rights, as far as the kernel lets this process. What it cannot give up, it never had or needs more
/// rights to give up than it has.
pub(super) fn keep_only(needed: CapabilitySet) {
    let _ = forbid_listening();
    let all = CapabilitySet::all();
    for capability in all.difference(needed).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    if let Ok(sets) = capabilities(None) {
        let [effective, permitted] = [sets.effective, sets.permitted].map(|set| set.intersection(needed));
        let _ = set_capabilities(None, CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() });
    }
}

/// Forbids to bind TCP ports. A process without CAP_SYS_ADMIN could do that only if it also gave up programs with set-uid
/// bits, which modules need then.
fn forbid_listening() -> Result<(), landlock::RulesetError> {
    let rules = Ruleset::default().handle_access(AccessNet::BindTcp)?.create()?;
    rules.no_new_privs(false).restrict_self().map(drop)
}

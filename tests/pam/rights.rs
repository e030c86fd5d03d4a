//! What the processes of PAM may and may not do.

use pop3d::pam::Verdict;

use super::processes::Processes;
use super::{System, UNIX};
use crate::harness::processes::capabilities;

/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_AUDIT_WRITE.
const KEPT: u64 = 0x2000_00ef & !0x10;

#[test]
fn monitor_and_workers_keep_the_rights_that_modules_need_and_no_others() {
    let Some(system) = System::new(UNIX) else { return };
    let before = capabilities(std::process::id(), "CapBnd");
    let processes = Processes::start(&system, &["--processes", "1"]);
    assert_eq!(processes.ask("ana", b"secret").unwrap().verdict, Verdict::Accepted);
    for process in [processes.monitor(), processes.expect(1)[0]] {
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(capabilities(process, field), before & KEPT, "{field} of {process}");
        }
    }
}

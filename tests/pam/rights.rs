//! What the processes of PAM may and may not do.

use std::fs;

use pop3d::pam::Verdict;

use super::processes::Processes;
use super::{System, UNIX};

/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID and CAP_AUDIT_WRITE.
const KEPT: u64 = 0x2000_00ef & !0x10;

fn capabilities(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

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

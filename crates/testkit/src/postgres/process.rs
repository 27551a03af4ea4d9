//! The server's processes: whether it is ready, which there are, ending them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Whether this postmaster has written that it accepts connections: its number in the first line of its file, its state in the eighth.
pub(super) fn is_ready(pid_file: &Path, postmaster: u32) -> bool {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&postmaster.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}

/// Sends a signal; processes that are gone are left out.
pub(super) fn signal(name: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    let list = processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    // The shell's own `kill` is there where no program of that name is.
    let _ = Command::new("sh").arg("-c").arg(format!("kill -{name} {list}")).stderr(Stdio::null()).status();
}

/// The processes that a process has started.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| state(*process).is_some_and(|(_, of)| of == parent)).collect()
}

/// Waits until none of the processes runs any more.
pub(super) fn wait_gone(processes: &[u32], within: Duration) {
    let begun = Instant::now();
    let runs = |process: &u32| state(*process).is_some_and(|(state, _)| state != 'Z' && state != 'X');
    while processes.iter().any(runs) && begun.elapsed() < within {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// State and parent of a process, from `/proc/<id>/stat`: `id (name) state parent …`.
fn state(process: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Gives back the small segment of shared memory that a killed postmaster leaves: the second number in the seventh line of its file, which a
/// postmaster that stopped in order has removed.
pub(super) fn remove_shared_memory(pid_file: &Path) {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    if let Some(segment) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["--shmem-id", segment]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

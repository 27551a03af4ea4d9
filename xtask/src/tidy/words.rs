//! Words that have no place in the tree: paths of one machine, and notes that somebody meant to come back to.

use super::{File, Finding};

/// Folders whose absolute path belongs to one machine.
const MACHINE_FOLDERS: [&str; 6] = ["work", "root", "tmp", "home", "Users", "mnt"];
const NOTES: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
const LOCK_FILE: &str = "Cargo.lock";
const THIS_FILE: &str = "xtask/src/tidy/words.rs";

/// Every line with such a word.
pub fn check(files: &[File]) -> Vec<Finding> {
    let read = files.iter().filter(|file| file.path != LOCK_FILE && file.path != THIS_FILE);
    read.flat_map(|file| {
        let lines = file.text.lines().enumerate();
        lines.filter_map(|(index, line)| fault(line).map(|fault| Finding::new(&file.path, index + 1, fault)))
    })
    .collect()
}

fn fault(line: &str) -> Option<String> {
    let path = MACHINE_FOLDERS.iter().find(|folder| names_folder(line, folder));
    let note = NOTES.iter().find(|note| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == **note));
    path.map(|folder| format!("a path of one machine: /{folder}")).or_else(|| note.map(|note| format!("a note left behind: {note}")))
}

/// Whether the line has `/folder/` as the start of a path, not in the middle of one.
fn names_folder(line: &str, folder: &str) -> bool {
    let wanted = format!("/{folder}/");
    line.match_indices(&wanted).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '}' | '_' | '-' | '~' | '$' | ')' | ']' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn faults(line: &str) -> usize {
        check(&[file("docs/a.md", line)]).len()
    }

    #[test]
    fn machine_paths() {
        for line in ["see /tmp/x", "\"/home/me/y\""] {
            assert_eq!(faults(line), 1, "{line}");
        }
        for line in ["https://example.org/home/page", "{data}/tmp/part", "/workflow/x", "$HOME/tmp/x", "POST /api/home/"] {
            assert_eq!(faults(line), 0, "{line}");
        }
    }

    #[test]
    fn notes() {
        assert_eq!(faults("// TODO: later"), 1);
        assert_eq!(faults("an XXXL shirt, todo lists"), 0);
        assert_eq!(check(&[file(LOCK_FILE, "TODO"), file(THIS_FILE, "TODO")]), []);
    }
}

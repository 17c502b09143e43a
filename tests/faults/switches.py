"""What is put into the sources so that a fault is on by name, and notes who comes past it."""

# Names the fault that is on.
NAME = "OTTLA_FAULT"
# A folder for notes: each process writes there which faults it came past, and in which test.
REACHED = "OTTLA_FAULTS_REACHED"

# A process notes each fault once a test. It forks in the middle, and is killed: nothing may wait for a lock
# for ever, and each line is written at once.
RUST = """
/// Faults that are planted to see which tests notice.
mod planted {
    use std::collections::HashSet;
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    static ON: OnceLock<Option<String>> = OnceLock::new();
    static NOTES: OnceLock<Option<String>> = OnceLock::new();
    static SEEN: Mutex<Option<HashSet<(&'static str, String)>>> = Mutex::new(None);

    pub(crate) fn is(name: &'static str) -> bool {
        if let Some(folder) = NOTES.get_or_init(|| std::env::var("OTTLA_FAULTS_REACHED").ok()) {
            note(folder, name);
        }
        ON.get_or_init(|| std::env::var("OTTLA_FAULT").ok()).as_deref() == Some(name)
    }

    fn note(folder: &str, name: &'static str) {
        let var = |name| std::env::var(name).ok();
        let nextest = || Some(format!("{} {}", var("NEXTEST_BINARY_ID")?, var("NEXTEST_TEST_NAME")?));
        let pytest = || Some(var("PYTEST_CURRENT_TEST")?.rsplit_once(' ')?.0.to_owned());
        let Some(test) = pytest().or_else(nextest) else { return };
        for _ in 0..1000 {
            let Ok(mut seen) = SEEN.try_lock() else { continue };
            if seen.get_or_insert_default().insert((name, test.clone())) {
                let file = format!("{folder}/{}-{}", std::process::id(), module_path!().replace("::", "-"));
                let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
                let _ = file.and_then(|mut file| file.write_all(format!("{name}\\t{test}\\n").as_bytes()));
            }
            return;
        }
    }
}
"""
PYTHON = """import os


def is_on(name):
    folder, test = os.environ.get("OTTLA_FAULTS_REACHED"), os.environ.get("PYTEST_CURRENT_TEST")
    if folder and test:
        with open(f"{folder}/{os.getpid()}-python", "a") as notes:
            notes.write(f"{name}\\t{test.rpartition(' ')[0]}\\n")
    return os.environ.get("OTTLA_FAULT") == name
"""
GO = """package {package}

import "os"

var faultThatIsOn = os.Getenv("OTTLA_FAULT")

func planted(name string) bool {{ return faultThatIsOn == name }}
"""
C = (
    "#include <stdlib.h>\n#include <string.h>\n"
    "static int planted(const char *name)"
    '{ const char *on = getenv("OTTLA_FAULT"); return on && !strcmp(on, name); }\n'
)


def expression(file, name):
    """What says whether the fault is on, in the language of `file`."""
    if file.endswith(".rs"):
        return f'crate::planted::is("{name}")'
    if file.endswith(".py"):
        return f'__import__("ottla._planted", fromlist=["is_on"]).is_on("{name}")'
    return f'planted("{name}")'

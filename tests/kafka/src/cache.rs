//! Where fetched things are kept: one folder for all work trees of a user.
//!
//! `OTTLA_CACHE`, else `$XDG_CACHE_HOME/ottla`, else `~/.cache/ottla`. An entry is complete when its
//! marker file exists, and is only ever written under a lock: two test processes that start at the
//! same moment fetch once.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

const MARKER: &str = ".complete";

/// The cache folder.
pub fn root() -> Result<PathBuf> {
    let var = |name| std::env::var_os(name);
    root_from(var("OTTLA_CACHE"), var("XDG_CACHE_HOME"), var("HOME"))
}

fn root_from(
    own: Option<OsString>,
    xdg: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf> {
    let absolute = |v: Option<OsString>| v.map(PathBuf::from).filter(|p| p.is_absolute());
    absolute(own)
        .or_else(|| absolute(xdg).map(|p| p.join("ottla")))
        .or_else(|| absolute(home).map(|p| p.join(".cache").join("ottla")))
        .ok_or_else(|| {
            Error::new(
                "no cache folder: none of OTTLA_CACHE, XDG_CACHE_HOME, HOME is an absolute path. \
                 Type: export OTTLA_CACHE=/some/folder",
            )
        })
}

/// Whether [`entry`] would return without building.
pub fn has(kind: &str, name: &str) -> bool {
    root().is_ok_and(|root| root.join(kind).join(name).join(MARKER).exists())
}

/// Returns `root/kind/name`, calling `build` with it as an empty folder if it is not complete.
///
/// `build` runs under an exclusive lock. What it leaves when it fails is removed by the next call,
/// so an interrupted download is never mistaken for a whole one.
pub fn entry(kind: &str, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    entry_below(&root()?.join(kind), name, build)
}

fn entry_below(
    parent: &Path,
    name: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let dir = parent.join(name);
    let marker = dir.join(MARKER);
    if marker.exists() {
        return Ok(dir);
    }
    fs::create_dir_all(parent).context(format!("creating {}", parent.display()))?;
    let lock_path = parent.join(format!("{name}.lock"));
    let lock = File::create(&lock_path).context(format!("creating {}", lock_path.display()))?;
    // Released by the operating system when the file closes, also when this process dies.
    lock.lock().context(format!("locking {}", lock_path.display()))?;
    if !marker.exists() {
        if dir.exists() {
            fs::remove_dir_all(&dir).context(format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).context(format!("creating {}", dir.display()))?;
        build(&dir)?;
        File::create(&marker).context(format!("writing {}", marker.display()))?;
    }
    Ok(dir)
}

/// A short stable name for a text (FNV-1a): entries change when what they are made from changes.
pub fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(s: &str) -> Option<OsString> {
        Some(OsString::from(s))
    }

    #[test]
    fn the_own_variable_wins_then_xdg_then_home() {
        assert_eq!(root_from(os("/a"), os("/b"), os("/c")).unwrap(), Path::new("/a"));
        assert_eq!(root_from(None, os("/b"), os("/c")).unwrap(), Path::new("/b/ottla"));
        assert_eq!(root_from(None, None, os("/c")).unwrap(), Path::new("/c/.cache/ottla"));
    }

    #[test]
    fn relative_folders_do_not_count_and_none_says_what_to_type() {
        assert_eq!(root_from(os("a"), None, os("/c")).unwrap(), Path::new("/c/.cache/ottla"));
        let error = root_from(None, os(""), None).unwrap_err().to_string();
        assert!(error.contains("export OTTLA_CACHE="), "{error}");
    }

    #[test]
    fn fingerprints_are_stable() {
        assert_eq!(fingerprint(""), "cbf29ce484222325");
        assert_eq!(fingerprint("a"), "af63dc4c8601ec8c");
    }

    #[test]
    fn an_entry_is_whole_or_made_anew() {
        let parent = std::env::temp_dir().join(format!("ottla-cache-{}", std::process::id()));
        let half = |dir: &Path| {
            fs::write(dir.join("half"), "").context("writing")?;
            Err(Error::new("the line is down"))
        };
        assert!(entry_below(&parent, "a", half).is_err());
        // What was left of it is gone before the next try.
        let whole = |dir: &Path| {
            assert!(!dir.join("half").exists());
            fs::write(dir.join("whole"), "").context("writing")
        };
        let dir = entry_below(&parent, "a", whole).unwrap();
        assert!(dir.join("whole").exists());
        let never = |_: &Path| panic!("it is complete");
        assert_eq!(entry_below(&parent, "a", never).unwrap(), dir);
        fs::remove_dir_all(&parent).unwrap();
    }
}

//! The C library as it is installed: `target/ottla-dist/{include,lib,lib/pkgconfig}`.
//!
//! cargo calls the library `libottla_c`, since `libottla` is the Rust crate's; users know it as
//! `libottla.so.0`, which is the soname that its build script gives it.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::c::PRIVATE_LIBS;
use crate::count::Counts;
use crate::log::Log;
use crate::place::Place;

/// A release build of everything, on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

const SONAME: &str = "libottla.so.0";

/// Every exported name begins with it.
const PREFIX: &str = "ottla_";

/// Builds the library and lays it out; returns the folder.
pub(crate) fn build(place: &Place, log: &mut Log) -> Result<PathBuf, String> {
    let mut cargo = place.command("cargo");
    cargo.args(["build", "--locked", "--release", "-p", "ottla-c", "--features", "test-broker"]);
    cargo.arg("--lib");
    log.prepare(cargo, LIMIT)?;
    let dist = place.target().join("ottla-dist");
    lay_out(&place.target().join("release"), &place.root().join("c-api/include/ottla.h"), &dist)
        .map_err(|e| format!("laying out {}: {e}", dist.display()))?;
    let stamp = place.root().join(STAMP);
    if stamp.parent().is_some_and(Path::exists) {
        stamp_go(&dist.join("lib/libottla.a"), &stamp)
            .map_err(|e| format!("writing {}: {e}", stamp.display()))?;
    }
    log.line(&format!("laid out in {}", dist.display()));
    Ok(dist)
}

/// What tells Go that there is another archive: it builds anew what a header of a package changes, and does not look at what
/// is linked.
const STAMP: &str = "go-bindings/internal/capi/archive.h";

fn stamp_go(archive: &Path, stamp: &Path) -> io::Result<()> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&fs::read(archive)?);
    let text = format!("#define OTTLA_ARCHIVE \"{:016x}\"\n", hasher.finish());
    // Not touched while it is the same.
    if fs::read_to_string(stamp).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(stamp, text)
}

fn lay_out(built: &Path, header: &Path, dist: &Path) -> io::Result<()> {
    // Nothing of an earlier layout may stay: what is not made now must not be linked against.
    if dist.exists() {
        fs::remove_dir_all(dist)?;
    }
    let (lib, include) = (dist.join("lib"), dist.join("include"));
    fs::create_dir_all(lib.join("pkgconfig"))?;
    fs::create_dir_all(&include)?;
    fs::copy(built.join("libottla_c.a"), lib.join("libottla.a"))?;
    if cfg!(target_os = "macos") {
        fs::copy(built.join("libottla_c.dylib"), lib.join("libottla.dylib"))?;
    } else {
        fs::copy(built.join("libottla_c.so"), lib.join(SONAME))?;
        // The name the linker looks for; programs then ask for the soname.
        std::os::unix::fs::symlink(SONAME, lib.join("libottla.so"))?;
    }
    fs::copy(header, include.join("ottla.h"))?;
    fs::write(lib.join("pkgconfig/ottla.pc"), pkg_config())
}

/// Relative to the file itself, so that the folder can be moved.
fn pkg_config() -> String {
    format!(
        "prefix=${{pcfiledir}}/../..\n\
         libdir=${{prefix}}/lib\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: ottla\n\
         Description: A Kafka client\n\
         Version: {}\n\
         Cflags: -I${{includedir}}\n\
         Libs: -L${{libdir}} -lottla\n\
         Libs.private: {PRIVATE_LIBS}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The library carries its soname, so that programs ask for the version they were built with.
pub(crate) fn check_layout(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    let library = library(place, log)?;
    let mut readelf = Command::new("readelf");
    readelf.arg("-d").arg(&library);
    let (success, output) = log.run(readelf, LIMIT)?;
    if success && output.contains(&format!("[{SONAME}]")) {
        return Ok(Counts::PASS);
    }
    Err(format!("{} does not have the soname {SONAME}", library.display()))
}

/// Exported are the names of `c-api/symbols.txt`, and no others.
pub(crate) fn check_symbols(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    let library = library(place, log)?;
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"]).arg(&library);
    let (success, output) = log.run(nm, LIMIT)?;
    if !success {
        return Err("nm failed".into());
    }
    let path = place.root().join("c-api/symbols.txt");
    let list = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let problems = compare(&list, &output);
    if problems.is_empty() { Ok(Counts::PASS) } else { Err(problems.join("\n")) }
}

fn library(place: &mut Place, log: &mut Log) -> Result<PathBuf, String> {
    Ok(PathBuf::from(place.fill("{dist}", log)?).join("lib").join(SONAME))
}

fn compare(list: &str, nm: &str) -> Vec<String> {
    let frozen: BTreeSet<&str> = list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let exported: BTreeSet<&str> = nm
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        // `name@@VERSION`
        .map(|name| name.split('@').next().unwrap_or(name))
        .collect();
    let new = exported.difference(&frozen).map(|name| {
        let what = if name.starts_with(PREFIX) { "exported but not listed" } else { "not ours" };
        format!("{name}: {what} in c-api/symbols.txt")
    });
    let gone = frozen.difference(&exported).map(|name| format!("{name}: listed, not exported"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_library_must_agree() {
        let nm = "0001 T ottla_a\n0002 T ottla_b@@V1\n";
        assert!(compare("# names\nottla_a\nottla_b\n", nm).is_empty());
        let problems = compare("ottla_b\nottla_c\n", nm);
        assert_eq!(
            problems,
            [
                "ottla_a: exported but not listed in c-api/symbols.txt",
                "ottla_c: listed, not exported"
            ]
        );
        assert_eq!(compare("", "0 T rust_eh_personality").len(), 1);
    }

    #[test]
    fn a_layout_replaces_the_one_before() {
        let folder = std::env::temp_dir().join(format!("ottla-dist-{}", std::process::id()));
        let (built, dist) = (folder.join("built"), folder.join("dist"));
        fs::create_dir_all(&built).unwrap();
        for name in ["libottla_c.a", "libottla_c.so", "libottla_c.dylib", "ottla.h"] {
            fs::write(built.join(name), name).unwrap();
        }
        fs::create_dir_all(dist.join("lib")).unwrap();
        fs::write(dist.join("lib/libold.so"), "").unwrap();
        lay_out(&built, &built.join("ottla.h"), &dist).unwrap();
        assert!(!dist.join("lib/libold.so").exists());
        assert_eq!(fs::read_to_string(dist.join("lib/libottla.so")).unwrap(), "libottla_c.so");
        assert_eq!(fs::read_to_string(dist.join("lib").join(SONAME)).unwrap(), "libottla_c.so");
        let pc = fs::read_to_string(dist.join("lib/pkgconfig/ottla.pc")).unwrap();
        assert!(pc.contains("\nLibs: -L${libdir} -lottla\n"), "{pc}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn another_archive_has_another_stamp() {
        let folder = std::env::temp_dir().join(format!("ottla-stamp-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (archive, stamp) = (folder.join("libottla.a"), folder.join("archive.h"));
        let stamped = |content: &str| {
            fs::write(&archive, content).unwrap();
            stamp_go(&archive, &stamp).unwrap();
            fs::read_to_string(&stamp).unwrap()
        };
        let (one, other, again) = (stamped("one"), stamped("other"), stamped("one"));
        assert!(one.starts_with("#define OTTLA_ARCHIVE \""), "{one}");
        assert!(one != other && one == again);
        fs::remove_dir_all(&folder).unwrap();
    }
}

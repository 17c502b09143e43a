//! Ottla as `go get` has it: `cargo xtask dist go` writes to `target/ottla-go`.
//!
//! | folder | is |
//! |---|---|
//! | `modules` | the module `go-bindings` as it is published, and beside it one for each platform with the C library: the sources of this tree have none, and a repository is no place for them |
//! | `proxy` | the same as a module proxy has it: `GOPROXY=file://...` |
//!
//! A program has exactly one of the libraries linked in, that of the platform it is built for. It is one object of which
//! nothing is seen but `ottla_...`: two static libraries of Rust in one program would otherwise both define Rust's own names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::log::Log;
use crate::place::Place;

pub(crate) const MODULE: &str = "github.com/ottla-rs/ottla/go-bindings";

/// A release build of everything, on two busy cores.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// What a library is built for.
struct Platform {
    /// Its module is `lib/` and this.
    name: &'static str,
    /// Rust's name of it.
    target: &'static str,
    os: &'static str,
    arch: &'static str,
    musl: bool,
    /// What a static library written in Rust needs of the system.
    libs: &'static str,
}

const PLATFORMS: [Platform; 6] = {
    const fn linux(
        name: &'static str,
        target: &'static str,
        arch: &'static str,
        musl: bool,
    ) -> Platform {
        Platform { name, target, os: "linux", arch, musl, libs: "-lm -ldl -lpthread" }
    }
    const fn darwin(name: &'static str, target: &'static str, arch: &'static str) -> Platform {
        let libs = "-framework Security -framework CoreFoundation";
        Platform { name, target, os: "darwin", arch, musl: false, libs }
    }
    [
        linux("linux-amd64", "x86_64-unknown-linux-gnu", "amd64", false),
        linux("linux-arm64", "aarch64-unknown-linux-gnu", "arm64", false),
        linux("linux-amd64-musl", "x86_64-unknown-linux-musl", "amd64", true),
        linux("linux-arm64-musl", "aarch64-unknown-linux-musl", "arm64", true),
        darwin("darwin-amd64", "x86_64-apple-darwin", "amd64"),
        darwin("darwin-arm64", "aarch64-apple-darwin", "arm64"),
    ]
};

/// With this build tag a program is for musl, of which Go knows nothing.
const MUSL_TAG: &str = "ottla_musl";

/// What was made.
pub(crate) struct Made {
    pub(crate) proxy: PathBuf,
    pub(crate) version: String,
}

/// Builds what this machine can build; what happens, and what does not, is told to `say`.
pub(crate) fn build(place: &Place, log: &mut Log, say: &dyn Fn(&str)) -> Result<Made, String> {
    let folder = place.target().join("ottla-go");
    let (modules, proxy) = (folder.join("modules"), folder.join("proxy"));
    for old in [&modules, &proxy] {
        // Nothing of an earlier run may stay: what is not made now must not be found.
        if old.exists() {
            fs::remove_dir_all(old).map_err(|e| format!("{}: {e}", old.display()))?;
        }
    }
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    let host = host(place, log)?;
    let mut built = Vec::new();
    for platform in &PLATFORMS {
        if let Some(why) = why_not(place, log, platform, &host)? {
            say(&format!("{:<18} not built: {why}", platform.name));
            continue;
        }
        say(&format!("{:<18} building", platform.name));
        let archive = compile(place, log, platform, &host)?;
        let own = modules.join("lib").join(platform.name);
        let object = own.join("libottla.a");
        make(&own)?;
        let sizes = localise(place, log, &archive, &folder.join("work"), &object)?;
        write(&own.join("go.mod"), &format!("module {MODULE}/lib/{}\n\ngo 1.24\n", platform.name))?;
        write(&own.join("lib.go"), &library_package(platform))?;
        write(&own.join("doc.go"), DOC)?;
        licences(place.root(), &own)?;
        say(&format!("{:<18} {}", platform.name, sizes));
        built.push(platform);
    }
    if built.is_empty() {
        return Err("no library could be built".into());
    }
    let main = modules.join("go-bindings");
    sources(place.root(), &main, &built, &version)?;
    publish(place, log, &proxy, "", &main, &version, &folder)?;
    for platform in &built {
        let name = format!("/lib/{}", platform.name);
        let own = modules.join("lib").join(platform.name);
        let size = publish(place, log, &proxy, &name, &own, &version, &folder)?;
        say(&format!("{:<18} {} as a module's archive", platform.name, megabytes(size)));
    }
    Ok(Made { proxy, version })
}

fn host(place: &Place, log: &mut Log) -> Result<String, String> {
    let mut rustc = place.command("rustc");
    rustc.arg("-vV");
    let (_, said) = log.run(rustc, LIMIT)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say what it runs on".into())
}

/// Why a library is not built here, in words.
fn why_not(
    place: &Place,
    log: &mut Log,
    platform: &Platform,
    host: &str,
) -> Result<Option<String>, String> {
    let target = platform.target;
    if target == host {
        return Ok(None);
    }
    let mut rustc = place.command("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let (_, said) = log.run(rustc, LIMIT)?;
    if !Path::new(said.trim()).exists() {
        return Ok(Some(format!("needs Rust for {target}: rustup target add {target}")));
    }
    let variable = format!("CC_{}", target.replace('-', "_"));
    if std::env::var_os(&variable).is_none() {
        return Ok(Some(format!("needs a C compiler for {target}, named by {variable}")));
    }
    // Its objects are taken apart by the tools of its own system.
    Ok((platform.os == "darwin").then(|| "is built on macOS".into()))
}

/// The static library as cargo makes it.
fn compile(
    place: &Place,
    log: &mut Log,
    platform: &Platform,
    host: &str,
) -> Result<PathBuf, String> {
    let mut cargo = place.command("cargo");
    cargo.args(["build", "--locked", "--release", "-p", "ottla-c", "--features", "test-broker"]);
    cargo.arg("--lib");
    let mut release = place.target().join("release");
    if platform.target != host {
        cargo.args(["--target", platform.target]);
        release = place.target().join(platform.target).join("release");
    }
    log.prepare(cargo, LIMIT)?;
    Ok(release.join("libottla_c.a"))
}

/// Sections of an object that say the same thing are made one: each has a name of its own before, which takes more room
/// than what is in it.
const MERGED: &str = "SECTIONS {
  .text : { *(.text .text.*) }
  .rodata : { *(.rodata .rodata.*) }
  .gcc_except_table : { *(.gcc_except_table .gcc_except_table.*) }
  .data.rel.ro : { *(.data.rel.ro .data.rel.ro.*) }
  .data : { *(.data .data.*) }
  .tdata : { *(.tdata .tdata.*) }
  .tbss : { *(.tbss .tbss.*) }
  .bss : { *(.bss .bss.*) }
}
";

/// Makes an archive of one object, of which only the names of `c-api/symbols.txt` are seen, and which has only what they
/// need. Says how large it was and is.
fn localise(
    place: &Place,
    log: &mut Log,
    from: &Path,
    work: &Path,
    to: &Path,
) -> Result<String, String> {
    make(work)?;
    let list = place.root().join("c-api/symbols.txt");
    let list = fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let names: Vec<_> =
        list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let (whole, small, script) =
        (work.join("whole.o"), work.join("small.o"), work.join("merge.ld"));
    let (one, kept) = (work.join("ottla.o"), work.join("names.txt"));
    write(&script, MERGED)?;
    write(&kept, &(names.join("\n") + "\n"))?;
    if to.exists() {
        fs::remove_file(to).map_err(|e| format!("{}: {e}", to.display()))?;
    }

    let mut link = place.command("ld");
    link.args(["-r", "--gc-sections"]);
    for name in &names {
        link.args(["-u", name]);
    }
    link.arg("--whole-archive").arg(from).arg("-o").arg(&whole);
    log.prepare(link, LIMIT)?;
    let mut strip = place.command("objcopy");
    strip.args(["--strip-unneeded", "--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    strip.arg(format!("--keep-global-symbols={}", kept.display())).arg(&whole).arg(&small);
    log.prepare(strip, LIMIT)?;
    let mut merge = place.command("ld");
    merge.args(["-r", "-T"]).arg(&script);
    merge.arg(&small).arg("-o").arg(&one);
    log.prepare(merge, LIMIT)?;
    let mut archive = place.command("ar");
    archive.arg("rcs").arg(to).arg(&one);
    log.prepare(archive, LIMIT)?;

    let sizes = format!("{}, of {} that cargo made", megabytes(size(to)?), megabytes(size(from)?));
    fs::remove_dir_all(work).map_err(|e| format!("{}: {e}", work.display()))?;
    Ok(sizes)
}

const DOC: &str = "// Package lib has Ottla's C library for one platform. Programs import \
                   github.com/ottla-rs/ottla/go-bindings, which imports this.\npackage lib\n";

fn library_package(platform: &Platform) -> String {
    format!(
        "package lib\n\n// #cgo LDFLAGS: ${{SRCDIR}}/libottla.a {}\nimport \"C\"\n",
        platform.libs
    )
}

/// The build constraint of a platform.
fn constraint(platform: &Platform) -> String {
    let libc = match (platform.os, platform.musl) {
        ("linux", true) => format!(" && {MUSL_TAG}"),
        ("linux", false) => format!(" && !{MUSL_TAG}"),
        _ => String::new(),
    };
    format!("{} && {}{libc}", platform.os, platform.arch)
}

/// The sources as they are published: with the header, without tests (they are about this tree), and linking what is in
/// the modules of the platforms.
fn sources(root: &Path, to: &Path, built: &[&Platform], version: &str) -> Result<(), String> {
    copy(&root.join("go-bindings"), to, &|name| {
        !name.ends_with("_test.go") && name != "interop" && name != "archive.h"
    })?;
    let capi = to.join("internal/capi");
    fs::copy(root.join("c-api/include/ottla.h"), capi.join("bundled.h"))
        .map_err(|e| format!("the header: {e}"))?;
    write(
        &capi.join("libc_musl.go"),
        &format!(
            "//go:build {MUSL_TAG}\n\npackage capi\n\n// #cgo CFLAGS: -DOTTLA_MUSL\nimport \"C\"\n"
        ),
    )?;
    licences(root, to)?;
    write(&capi.join("library.h"), LIBRARY_H)?;
    write(&capi.join("nocgo.go"), &no_cgo(built))?;
    fs::remove_file(capi.join("link_static.go")).map_err(|e| format!("link_static.go: {e}"))?;
    let mut requires = String::new();
    for platform in built {
        let module = format!("{MODULE}/lib/{}", platform.name);
        let text = format!(
            "//go:build {} && !ottla_pkgconfig\n\npackage capi\n\nimport _ \"{module}\"\n",
            constraint(platform)
        );
        write(&capi.join(format!("link_{}.go", platform.name.replace('-', "_"))), &text)?;
        requires += &format!("\t{module} {version}\n");
    }
    let any: Vec<_> = built.iter().map(|p| format!("({})", constraint(p))).collect();
    let names: Vec<_> = built.iter().map(|p| p.name).collect();
    write(
        &capi.join("noplatform.go"),
        &format!(
            "//go:build !ottla_pkgconfig && !({})\n\npackage capi\n\n// What there is no library for does not compile, and says \
             so.\nconst _ int = \"Ottla for Go comes with its C library for {}: for another platform build the library from its \
             sources (c-api/README.md), install it, and build with -tags ottla_pkgconfig\"\n",
            any.join(" || "),
            names.join(", ")
        ),
    )?;
    write(&to.join("go.mod"), &format!("module {MODULE}\n\ngo 1.24\n\nrequire (\n{requires})\n"))
}

const LIBRARY_H: &str = "/* The C library's header. Go does not know which C library the system has: what does not fit is said here. */
#if defined(OTTLA_PKGCONFIG)
#include <ottla.h>
#else
#if defined(__linux__)
#include <features.h>
#if defined(__GLIBC__) && defined(OTTLA_MUSL)
#error \"this system has glibc: build without -tags ottla_musl\"
#elif !defined(__GLIBC__) && !defined(OTTLA_MUSL)
#error \"this system has no glibc: on one with musl (Alpine) build with -tags ottla_musl\"
#endif
#endif
#include \"bundled.h\"
#endif
";

fn no_cgo(built: &[&Platform]) -> String {
    let any: Vec<_> = built.iter().map(|p| format!("({})", constraint(p))).collect();
    format!(
        "//go:build !cgo && (ottla_pkgconfig || {})\n\npackage capi\n\n// Every file that imports \"C\" is left out of a build without \
         cgo: all that Go would say then is that constraints exclude them. Go turns cgo off by itself where it finds no C \
         compiler, and for other platforms than its own.\nconst _ int = \"Ottla for Go calls a C library and this build has no cgo: \
         install a C compiler for the target platform and build with CGO_ENABLED=1 (and CC naming that compiler, for another \
         platform than this one)\"\n",
        any.join(" || ")
    )
}

/// A module as a proxy has it; gives the size of its archive.
fn publish(
    place: &Place,
    log: &mut Log,
    proxy: &Path,
    name: &str,
    module: &Path,
    version: &str,
    folder: &Path,
) -> Result<u64, String> {
    let at = proxy.join(format!("{MODULE}{name}/@v"));
    make(&at)?;
    write(&at.join("list"), &format!("{version}\n"))?;
    let time = "2026-01-01T00:00:00Z";
    write(
        &at.join(format!("{version}.info")),
        &format!("{{\"Version\":\"{version}\",\"Time\":\"{time}\"}}\n"),
    )?;
    let there = module.join("go.mod");
    fs::copy(&there, at.join(format!("{version}.mod")))
        .map_err(|e| format!("{}: {e}", there.display()))?;
    // Names in the archive begin with the module and its version.
    let stage = folder.join("stage");
    copy(module, &stage.join(format!("{MODULE}{name}@{version}")), &|_| true)?;
    let archive = at.join(format!("{version}.zip"));
    let mut zip = place.command(&place.python().path);
    zip.current_dir(&stage).args(["-m", "zipfile", "-c"]).arg(&archive).arg("github.com");
    log.prepare(zip, LIMIT)?;
    // Python names folders too, which the archive of a module has not.
    let mut tidy = place.command(&place.python().path);
    tidy.args(["-c", TIDY]).arg(&archive);
    log.prepare(tidy, LIMIT)?;
    fs::remove_dir_all(&stage).map_err(|e| format!("{}: {e}", stage.display()))?;
    size(&archive)
}

/// Writes an archive anew, compressed and without folders.
const TIDY: &str = "import sys, zipfile
path = sys.argv[1]
with zipfile.ZipFile(path) as old:
    files = [(name, old.read(name)) for name in sorted(old.namelist()) if not name.endswith('/')]
with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as new:
    for name, data in files:
        new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
";

fn licences(root: &Path, to: &Path) -> Result<(), String> {
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(root.join(name), to.join(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    make(to)?;
    let entries = fs::read_dir(from).map_err(|e| format!("reading {}: {e}", from.display()))?;
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if !wanted(&name.to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), wanted)?;
        } else {
            fs::copy(&path, to.join(name)).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("creating {}: {e}", folder.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display()))
}

fn size(path: &Path) -> Result<u64, String> {
    fs::metadata(path).map(|m| m.len()).map_err(|e| format!("{}: {e}", path.display()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

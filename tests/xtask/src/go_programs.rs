//! The Go modules as users have them: an empty module gets them from a proxy, and is built and run. Nothing of this tree is on its
//! way but the proxy's files, and Go's cache of modules is a new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::count::Counts;
use crate::go_modules::{self, MODULE, Made};
use crate::log::Log;
use crate::place::Place;

/// Linking, and all of Go's own packages that are used.
const LIMIT: Duration = Duration::from_secs(10 * 60);

const MAIN: &str = r#"package main

import (
	"context"
	"fmt"
	"log"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

func main() {
	broker, err := ottla.StartEmbeddedBroker(1)
	check(err)
	defer broker.Close()
	check(broker.CreateTopic("events", 1, 1))
	client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()))
	check(err)
	defer client.Close()
	producer, err := client.NewProducer()
	check(err)
	ctx := context.Background()
	_, err = producer.ProduceMany(ctx, "events", [][]byte{[]byte("one"), []byte("two")})
	check(err)
	check(producer.Flush(ctx))
	consumer, err := client.NewConsumer(ottla.Topics("events"))
	check(err)
	read := 0
	for record, err := range consumer.Records(ctx) {
		check(err)
		fmt.Printf("read %s\n", record.Value)
		if read++; read == 2 {
			break
		}
	}
	other()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
"#;

const NO_OTHER: &str = "package main\n\nfunc other() {}\n";

/// Another library written in Rust: what it does takes the standard library, its allocator and its panics.
const OTHER_RS: &str = r#"use std::collections::HashMap;

#[no_mangle]
pub extern "C" fn other_counts() -> u32 {
    let counts: HashMap<String, u32> = (0..40).map(|i| (format!("{i}"), i)).collect();
    let caught = std::panic::catch_unwind(|| panic!("on purpose"));
    counts.values().sum::<u32>() + u32::from(caught.is_err())
}
"#;

/// The module is made, got, built and run; what can not be built says what to do.
pub(crate) fn run_empty_module(place: &mut Place, log: &mut Log) -> Result<Counts, String> {
    let go = place.fill("{go}", log)?;
    let mut told = Vec::new();
    let said = std::cell::RefCell::new(&mut told);
    let made = go_modules::build(place, log, &|line| said.borrow_mut().push(line.to_owned()))?;
    told.iter().for_each(|line| log.line(line));
    let user = User::new(place, go, made)?;
    let mut all = Counts::default();

    user.write("main.go", MAIN)?;
    user.write("other.go", NO_OTHER)?;
    user.succeeds(place, log, &["mod", "init", "example.com/empty"])?;
    user.succeeds(place, log, &["get", &format!("{MODULE}@{}", user.made.version)])?;
    let output = user.succeeds(place, log, &["run", "."])?;
    if !output.contains("read one") || !output.contains("read two") {
        return Err(format!("an empty module with Ottla printed: {output}"));
    }
    all += Counts::PASS;

    let archive = other_library(place, log, &user.folder)?;
    user.write(
        "other.go",
        &format!(
            "package main\n\n// #cgo LDFLAGS: {}\n// unsigned other_counts(void);\nimport \"C\"\nimport \"fmt\"\n\nfunc other() {{ \
             fmt.Println(\"the other library counts\", C.other_counts()) }}\n",
            archive.display()
        ),
    )?;
    let output = user.succeeds(place, log, &["run", "."])?;
    if !output.contains("the other library counts 781") || !output.contains("read two") {
        return Err(format!("beside another library of Rust it printed: {output}"));
    }
    all += Counts::PASS;
    user.write("other.go", NO_OTHER)?;

    let nowhere = user.folder.join("nowhere");
    fs::create_dir_all(&nowhere).map_err(|e| format!("{}: {e}", nowhere.display()))?;
    let no_path = nowhere.display().to_string();
    let other_platform: &[(&str, &str)] =
        &[("GOOS", "linux"), ("GOARCH", "riscv64"), ("CGO_ENABLED", "0")];
    for (what, env, wants) in [
        ("without cgo", &[("CGO_ENABLED", "0")][..], "install a C compiler"),
        ("without a compiler", &[("PATH", no_path.as_str())][..], "install a C compiler"),
        ("for another platform", other_platform, "for another platform build the library"),
    ] {
        let (success, output) = user.run(place, log, &["build", "."], env)?;
        // The heading of the package, and the sentence.
        let lines = output.lines().filter(|line| !line.trim().is_empty()).count();
        if success || !output.contains(wants) || lines > 3 {
            return Err(format!("{what}, a build says: {output}"));
        }
        all += Counts::PASS;
    }
    // Read-only as Go makes it: Go itself takes it away.
    user.succeeds(place, log, &["clean", "-modcache"])?;
    Ok(all)
}

/// Whoever writes a program.
struct User {
    folder: PathBuf,
    go: PathBuf,
    made: Made,
}

impl User {
    fn new(place: &Place, go: String, made: Made) -> Result<Self, String> {
        let folder = place.folder().join("go-empty");
        let cache = folder.join("modcache");
        if cache.exists() {
            let mut clean = place.command(&go);
            clean.args(["clean", "-modcache"]).env("GOMODCACHE", &cache);
            let _what_is_left_is_removed_next = clean.status();
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { folder, go: whole_path(go), made })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.folder.join(name), text).map_err(|e| format!("writing {name}: {e}"))
    }

    fn run(
        &self,
        place: &Place,
        log: &mut Log,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<(bool, String), String> {
        let mut go: Command = place.command(&self.go);
        go.current_dir(&self.folder).args(args);
        for name in ["CC", "CGO_ENABLED", "CGO_CFLAGS", "CGO_LDFLAGS", "GOWORK", "GOTOOLCHAIN"] {
            go.env_remove(name);
        }
        go.env("GOPROXY", format!("file://{}", self.made.proxy.display()));
        go.env("GOMODCACHE", self.folder.join("modcache"));
        go.envs([("GOSUMDB", "off"), ("GOFLAGS", "-mod=mod"), ("GOTOOLCHAIN", "local")]);
        go.envs(env.iter().copied());
        log.run(go, LIMIT)
    }

    fn succeeds(&self, place: &Place, log: &mut Log, args: &[&str]) -> Result<String, String> {
        match self.run(place, log, args, &[])? {
            (true, output) => Ok(output),
            (false, output) => Err(format!("go {} failed:\n{output}", args.join(" "))),
        }
    }
}

/// A program that is found without a search path.
fn whole_path(program: String) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|at| at.join(&program)).find(|p| p.exists());
    found.unwrap_or_else(|| program.into())
}

fn other_library(place: &Place, log: &mut Log, folder: &Path) -> Result<PathBuf, String> {
    let (source, archive) = (folder.join("other.rs"), folder.join("libother.a"));
    fs::write(&source, OTHER_RS).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut rustc = place.command("rustc");
    rustc.args(["--crate-type", "staticlib", "--edition", "2021", "-o"]).arg(&archive).arg(&source);
    log.prepare(rustc, LIMIT)?;
    Ok(archive)
}

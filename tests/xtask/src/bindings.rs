//! `cargo xtask bench go`: what a record costs through the bindings for C and Go, beside franz-go and confluent-kafka-go. Builds the
//! installed C library and a program for each client, and hands them to ottla-bench, which has the brokers and the figures.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::c::{Link, compile};
use crate::log::Log;
use crate::machine;
use crate::place::Place;
use crate::stage::Need;
use crate::stages::GO_ENV;

/// Programs in Go: the folder, and the client that it is.
const GO_PROGRAMS: [(&str, &str); 3] =
    [("ottla", "ottla"), ("franz", "franz-go"), ("confluent", "confluent-kafka-go")];

/// librdkafka, which comes with a peer, is linked statically.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// Builds and measures; `args` are ottla-bench's.
pub(crate) fn bench(
    root: &Path,
    target: &Path,
    json: bool,
    args: &[String],
) -> Result<bool, String> {
    let python = machine::check(&[Need::Cc])?;
    let mut place = Place::new(root.to_owned(), target.to_owned(), false, python);
    let mut log = Log::create(&place.folder(), "bench-go")?;
    let built = build(&mut place, &mut log);
    log.clear();
    let programs = built.map_err(|why| format!("{}\n{why}", log.tail(40)))?;

    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    cargo.args(["run", "--locked", "--release", "--quiet", "-p", "ottla-bench", "--", "bindings"]);
    for (who, path) in &programs {
        cargo.arg("--program").arg(format!("{who}={path}"));
    }
    cargo.args(json.then_some("--json")).args(args);
    let status = cargo.status().map_err(|e| format!("cannot start cargo: {e}"))?;
    Ok(status.success())
}

/// Each program with its language and client.
fn build(place: &mut Place, log: &mut Log) -> Result<Vec<(String, String)>, String> {
    let mut programs = Vec::new();
    let source = place.root().join("tests/bench/c/bench.c");
    let path = compile(place, log, &source, Link::Plain)?;
    programs.push(("c:ottla".to_owned(), path.display().to_string()));

    let folder = place.folder().join("bench-go");
    fs::create_dir_all(&folder).map_err(|e| format!("creating {}: {e}", folder.display()))?;
    let go = place.fill("{go}", log)?;
    for (name, client) in GO_PROGRAMS {
        let program = folder.join(name).display().to_string();
        let mut build = place.command(&go);
        build.current_dir(place.root().join("tests/bench/go"));
        build.args(["build", "-o", &program, &format!("./{name}")]);
        for (name, value) in GO_ENV {
            build.env(name, place.fill(value, log)?);
        }
        log.prepare(build, LIMIT)?;
        programs.push((format!("go:{client}"), program));
    }
    Ok(programs)
}

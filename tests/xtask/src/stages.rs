//! What `cargo xtask test` runs, as data.
//!
//! A stage, or a step of one, that names a part of the tree in `present` exists only where that part
//! does: a source archive without `go-bindings/` is still tested whole. Only whole parts are asked
//! for, never files of tests: one that is renamed must fail, not vanish from the table. `--list`
//! shows what is there.

use std::path::Path;

use ottla_test_kafka::DEFAULT_VERSION;

use crate::c::{check_header, compile_examples, run_c_tests, run_real_c_tests};
use crate::count::Count;
use crate::dist::{check_layout, check_symbols};
use crate::go_programs::run_empty_module;
use crate::instructions::count_instructions;
use crate::stage::{CHECK, Need, Run, Stage, Step, absent};
use crate::wheel;

/// The packages every workspace command names: another choice would build them with other features
/// and so a second time. ottla-python needs a Python to link.
pub(crate) const PACKAGES: [&str; 3] = ["--workspace", "--exclude", "ottla-python"];

/// Tests that need a real cluster have `real_` in their name; the interop matrix, a step
/// of its own, `real_interop_`, and groups with members of other clients, `real_peers_`. Those that need brokers of other
/// authors have `foreign_broker_`, those that need members, `foreign_member_`.
const NEEDS_NO_CLUSTER: &str =
    "not (test(real_) or test(foreign_broker_) or test(foreign_member_))";
const NEEDS_A_CLUSTER: &str = "test(real_) and not test(real_interop_) and not test(real_peers_)";

/// Nothing links from elsewhere than what `cargo xtask dist` laid out.
pub(crate) const GO_ENV: &[(&str, &str)] = &[
    ("CGO_ENABLED", "1"),
    ("CGO_CFLAGS", "-I{dist}/include"),
    ("CGO_LDFLAGS", "-L{dist}/lib -Wl,-rpath,{dist}/lib"),
    ("LD_LIBRARY_PATH", "{dist}/lib"),
    ("PKG_CONFIG_PATH", "{dist}/lib/pkgconfig"),
    ("GOTOOLCHAIN", "local"),
    ("GOFLAGS", "-mod=readonly"),
];

/// Command lines of the interop tools of other languages, for those that this tree has.
const INTEROP_ENV: &[(&str, &str)] = &[
    ("OTTLA_INTEROP_PYTHON", "{interop-python}"),
    ("OTTLA_INTEROP_GO", "{interop-go}"),
    ("OTTLA_INTEROP_C", "{interop-c}"),
];

/// Command lines of the members of other clients.
pub(crate) const PEERS_ENV: &[(&str, &str)] = &[
    ("OTTLA_PEER_LIBRDKAFKA", "{peer-librdkafka}"),
    ("OTTLA_PEER_FRANZ_GO", "{peer-franz-go}"),
    ("OTTLA_PEER_SARAMA", "{peer-sarama}"),
];

/// All stages, in the order they run: what fails fastest first.
pub(crate) const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        about: "rustfmt finds nothing to change; faults of tests/faults have their places",
        present: &[],
        needs: &[Need::Component("fmt")],
        cluster: false,
        steps: &[
            Step { name: "rustfmt", run: Run::Command("cargo fmt --all --check"), ..CHECK },
            Step {
                name: "faults",
                present: &["tests/faults"],
                run: Run::Command("{python} tests/faults/faults.py check"),
                ..CHECK
            },
        ],
    },
    Stage {
        name: "clippy",
        about: "lints of every package; the core with each set of features",
        present: &[],
        needs: &[Need::Component("clippy")],
        cluster: false,
        steps: &[
            Step {
                name: "workspace",
                run: Run::Command("cargo clippy --locked --workspace --all-targets -- -D warnings"),
                env: &[("PYO3_PYTHON", "{python}")],
                ..CHECK
            },
            Step {
                name: "core without features",
                run: Run::Command("cargo check -p ottla --no-default-features"),
                ..CHECK
            },
            Step {
                name: "core with lz4 alone",
                run: Run::Command("cargo check -p ottla --no-default-features --features lz4"),
                ..CHECK
            },
            Step {
                name: "core with testing",
                run: Run::Command("cargo check -p ottla --features testing"),
                ..CHECK
            },
        ],
    },
    Stage {
        name: "licences",
        about: "licences, sources and bans of deny.toml",
        present: &["deny.toml"],
        needs: &[],
        cluster: false,
        steps: &[Step {
            name: "cargo-deny",
            run: Run::Command(
                "{cargo-tools}/cargo-deny --all-features --locked check licenses bans \
                     sources",
            ),
            ..CHECK
        }],
    },
    Stage {
        name: "rust",
        about: "Rust tests that need no real cluster, and the examples in the documentation",
        present: &[],
        needs: &[],
        cluster: false,
        steps: &[
            Step {
                name: "tests",
                run: Run::Nextest(NEEDS_NO_CLUSTER),
                count: Count::Nextest,
                ..CHECK
            },
            Step {
                name: "documentation",
                run: Run::Command(
                    "cargo test --locked --doc --no-fail-fast --workspace \
                     --exclude ottla-python",
                ),
                count: Count::Libtest,
                ..CHECK
            },
        ],
    },
    Stage {
        name: "c",
        about: "the C library as installed: header, symbols, tests under AddressSanitizer",
        present: &["c-api/include/ottla.h"],
        needs: &[Need::Cc],
        cluster: false,
        steps: &[
            Step {
                name: "header is what the source says",
                run: Run::Command("cargo run --locked --quiet -p ottla-header -- --check"),
                ..CHECK
            },
            Step { name: "header for each standard", run: Run::Own(check_header), ..CHECK },
            Step { name: "layout", run: Run::Own(check_layout), ..CHECK },
            Step { name: "symbols", run: Run::Own(check_symbols), ..CHECK },
            Step { name: "tests", run: Run::Own(run_c_tests), ..CHECK },
            Step { name: "examples", run: Run::Own(compile_examples), ..CHECK },
        ],
    },
    Stage {
        name: "python",
        about: "the wheel in a fresh environment: tests, stubs, types",
        present: &["python/pyproject.toml"],
        needs: &[Need::Cc],
        cluster: false,
        steps: &[
            Step {
                name: "tests",
                run: Run::Command("{wheel}/python -P -m pytest -m 'not kafka'"),
                count: Count::Pytest,
                dir: "python",
                ..CHECK
            },
            Step { name: "wheel runs on older systems", run: Run::Own(wheel::check), ..CHECK },
            Step {
                name: "stubs",
                run: Run::Command("{wheel}/python -m mypy.stubtest ottla"),
                dir: "{tmp}",
                ..CHECK
            },
            Step {
                name: "types",
                run: Run::Command("{python-tools}/basedpyright --pythonpath {wheel}/python"),
                dir: "python",
                ..CHECK
            },
        ],
    },
    Stage {
        name: "go",
        about: "gofmt, vet, tests under the race detector, modules as users get them",
        present: &["go-bindings/go.mod"],
        needs: &[Need::Cc],
        cluster: false,
        steps: &[
            Step {
                name: "gofmt",
                run: Run::Command("{gofmt} -l ."),
                count: Count::Silent,
                dir: "go-bindings",
                ..CHECK
            },
            Step {
                name: "vet",
                run: Run::Command("{go} vet ./..."),
                dir: "go-bindings",
                env: GO_ENV,
                ..CHECK
            },
            Step {
                name: "tests",
                run: Run::Command(
                    "{go} test -json -race -count=1 -timeout=10m -skip ^TestReal ./...",
                ),
                count: Count::GoJson,
                dir: "go-bindings",
                env: GO_ENV,
                ..CHECK
            },
            Step {
                name: "examples",
                run: Run::Command("{go} vet ./..."),
                dir: "examples/go",
                env: GO_ENV,
                ..CHECK
            },
            Step {
                name: "examples do what they are for",
                run: Run::Command("{go} test -json -race -count=1 -timeout=5m ./..."),
                count: Count::GoJson,
                dir: "examples/go",
                env: GO_ENV,
                ..CHECK
            },
            Step {
                name: "go get into an empty module",
                run: Run::Own(run_empty_module),
                needs: &[Need::Go],
                ..CHECK
            },
        ],
    },
    Stage {
        name: "foreign",
        about: "other people's clients against the embedded broker, ours against their brokers",
        present: &["tests/interop"],
        needs: &[],
        cluster: false,
        steps: &[
            Step {
                name: "librdkafka",
                run: Run::Command("{foreign}/python tests/interop/librdkafka.py"),
                env: &[("BOOTSTRAP", "{broker}")],
                ..CHECK
            },
            Step {
                name: "franz-go",
                needs: &[Need::GoModules],
                run: Run::Command("{go} run ."),
                dir: "tests/interop/franz-go",
                env: &[
                    ("BOOTSTRAP", "{broker}"),
                    ("CGO_ENABLED", "0"),
                    ("GOTOOLCHAIN", "local"),
                    ("GOFLAGS", "-mod=readonly"),
                ],
                ..CHECK
            },
            Step {
                name: "members of other clients",
                present: &["tests/peers/Cargo.toml"],
                needs: &[Need::GoModules],
                run: Run::Nextest("test(foreign_member_)"),
                count: Count::Nextest,
                env: PEERS_ENV,
                ..CHECK
            },
            Step {
                name: "librdkafka's mock cluster",
                present: &["tests/scenarios/Cargo.toml"],
                run: Run::Nextest("test(foreign_broker_librdkafka_)"),
                count: Count::Nextest,
                env: &[(
                    "OTTLA_FOREIGN_LIBRDKAFKA",
                    "{foreign}/python tests/interop/mock_cluster.py",
                )],
                ..CHECK
            },
            Step {
                name: "franz-go's kfake",
                present: &["tests/scenarios/Cargo.toml"],
                needs: &[Need::GoModules],
                run: Run::Nextest("test(foreign_broker_kfake_)"),
                count: Count::Nextest,
                env: &[
                    ("OTTLA_FOREIGN_KFAKE", "{go} -C tests/interop/franz-go run ./kfake"),
                    ("CGO_ENABLED", "0"),
                    ("GOTOOLCHAIN", "local"),
                    ("GOFLAGS", "-mod=readonly"),
                ],
                ..CHECK
            },
        ],
    },
    Stage {
        name: "kafka",
        about: "everything that needs real brokers: three of them, shared by all steps",
        present: &[],
        needs: &[Need::Kafka("3.9.2"), Need::Kafka(DEFAULT_VERSION)],
        cluster: true,
        steps: &[
            Step {
                name: "rust",
                run: Run::Nextest(NEEDS_A_CLUSTER),
                count: Count::Nextest,
                ..CHECK
            },
            Step {
                name: "c",
                present: &["c-api/include/ottla.h"],
                run: Run::Own(run_real_c_tests),
                ..CHECK
            },
            Step {
                name: "python",
                present: &["python/pyproject.toml"],
                run: Run::Command("{wheel}/python -P -m pytest -m kafka"),
                count: Count::Pytest,
                dir: "python",
                ..CHECK
            },
            Step {
                name: "go",
                present: &["go-bindings/go.mod"],
                run: Run::Command(
                    "{go} test -json -race -count=1 -timeout=10m -run ^TestReal ./...",
                ),
                count: Count::GoJson,
                dir: "go-bindings",
                env: GO_ENV,
                ..CHECK
            },
            Step {
                name: "members of other clients",
                present: &["tests/peers/Cargo.toml", "tests/interop"],
                needs: &[Need::GoModules],
                run: Run::Nextest("test(real_peers_)"),
                count: Count::Nextest,
                env: PEERS_ENV,
                ..CHECK
            },
            Step {
                name: "interop matrix",
                present: &["tests/scenarios/Cargo.toml"],
                run: Run::Nextest("test(real_interop_)"),
                count: Count::Nextest,
                env: INTEROP_ENV,
                show: true,
                ..CHECK
            },
        ],
    },
    Stage {
        name: "instructions",
        about: "the hot paths take no more instructions than recorded (valgrind)",
        present: &["tests/bench/Cargo.toml"],
        needs: &[],
        cluster: false,
        steps: &[Step {
            name: "hot paths",
            run: Run::Own(count_instructions),
            show: true,
            ..CHECK
        }],
    },
    Stage {
        name: "quickstart",
        about: "the first command of the README",
        present: &["examples/Cargo.toml"],
        needs: &[],
        cluster: false,
        steps: &[
            Step {
                name: "build",
                run: Run::Command("cargo build --locked --release --example quickstart"),
                ..CHECK
            },
            Step {
                name: "quickstart",
                run: Run::Command("cargo run --locked --quiet --release --example quickstart"),
                show: true,
                ..CHECK
            },
            Step {
                name: "quickstart in a group",
                run: Run::Command(
                    "cargo run --locked --quiet --release --example quickstart -- --group 3",
                ),
                show: true,
                ..CHECK
            },
        ],
    },
];

/// The stages that `only` and `skip` leave, in their own order; empty `only` means all.
pub(crate) fn select(
    root: &Path,
    only: &[String],
    skip: &[String],
) -> Result<Vec<&'static Stage>, String> {
    for name in only.iter().chain(skip) {
        let Some(stage) = STAGES.iter().find(|stage| stage.name == name) else {
            let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
            return Err(format!("there is no stage '{name}'; there are {}", names.join(", ")));
        };
        if let Some(path) = absent(root, stage.present) {
            return Err(format!("the stage '{name}' needs {path}, which this tree does not have"));
        }
    }
    let named = |names: &[String], stage: &Stage| names.iter().any(|name| name == stage.name);
    let mut chosen: Vec<_> =
        STAGES.iter().filter(|stage| absent(root, stage.present).is_none()).collect();
    chosen.retain(|stage| (only.is_empty() || named(only, stage)) && !named(skip, stage));
    if chosen.is_empty() { Err("no stage is left to run".into()) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    fn names(only: &[&str], skip: &[&str]) -> Result<Vec<&'static str>, String> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let chosen = select(root(), &owned(only), &owned(skip))?;
        Ok(chosen.iter().map(|stage| stage.name).collect())
    }

    #[test]
    fn stages_run_in_their_own_order() {
        assert_eq!(names(&["rust", "fmt"], &[]).unwrap(), ["fmt", "rust"]);
        assert_eq!(names(&["rust", "fmt"], &["fmt"]).unwrap(), ["rust"]);
        assert!(!names(&[], &["kafka"]).unwrap().contains(&"kafka"));
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones_and_nothing_left_is_said() {
        let error = names(&["rsut"], &[]).unwrap_err();
        assert!(error.contains("'rsut'") && error.contains("fmt, clippy"), "{error}");
        assert_eq!(names(&["fmt"], &["fmt"]).unwrap_err(), "no stage is left to run");
        // Left out by a name that nothing has, a stage would run that nobody wanted.
        assert!(names(&[], &["kafak"]).unwrap_err().contains("'kafak'"));
        assert!(names(&["fmt"], &["kafak"]).unwrap_err().contains("'kafak'"));
    }

    #[test]
    fn a_stage_whose_files_are_not_there_is_not_in_the_table() {
        let nowhere = Path::new("/nonexistent");
        let there: Vec<_> = select(nowhere, &[], &[]).unwrap().iter().map(|s| s.name).collect();
        assert!(!there.contains(&"go") && there.contains(&"fmt"), "{there:?}");
        let error = select(nowhere, &["go".into()], &[]).unwrap_err();
        assert!(error.contains("go-bindings/go.mod"), "{error}");
    }

    #[test]
    fn names_are_unique() {
        for (i, stage) in STAGES.iter().enumerate() {
            assert!(STAGES[..i].iter().all(|other| other.name != stage.name), "{}", stage.name);
            assert!(!stage.steps.is_empty(), "{}", stage.name);
        }
    }

    /// Each test of a language runs in one stage: in its own, or in the one with real brokers.
    #[test]
    fn what_one_stage_leaves_out_another_runs() {
        let step = |stage: &str, step: &str| {
            let stage = STAGES.iter().find(|s| s.name == stage).unwrap();
            let found = stage.steps.iter().find(|s| s.name == step).unwrap();
            match found.run {
                Run::Command(line) | Run::Nextest(line) => line,
                Run::Own(_) => panic!("{step} is code"),
            }
        };
        let (plain, real) = (step("python", "tests"), step("kafka", "python"));
        assert_eq!(plain.replace("'not kafka'", "kafka"), real);
        assert_ne!(plain, real);
        let (plain, real) = (step("go", "tests"), step("kafka", "go"));
        assert_eq!(plain.replace("-skip ^TestReal", "-run ^TestReal"), real);
        assert_ne!(plain, real);
        let foreign = ["members of other clients", "librdkafka's mock cluster", "franz-go's kfake"];
        let foreign = foreign.map(|name| step("foreign", name));
        // Which of them runs a test of this name: a filter is one of `or` or of `and`, of words that may have a `not` before.
        let holds = |filter: &str, name: &str| {
            let (is_not, inner) = match filter.strip_prefix("not (") {
                Some(inner) => (true, inner.trim_end_matches("))").to_owned() + ")"),
                None => (false, filter.to_owned()),
            };
            let term = |term: &str| {
                let (is_not, word) = match term.strip_prefix("not ") {
                    Some(word) => (true, word),
                    None => (false, term),
                };
                let word = word.strip_prefix("test(").and_then(|w| w.strip_suffix(')')).unwrap();
                name.contains(word) != is_not
            };
            let holds = match inner.contains(" or ") {
                true => inner.split(" or ").any(term),
                false => inner.split(" and ").all(term),
            };
            holds != is_not
        };
        let all = [
            step("rust", "tests"),
            step("kafka", "rust"),
            step("kafka", "members of other clients"),
            step("kafka", "interop matrix"),
            foreign[0],
            foreign[1],
            foreign[2],
        ];
        let names = [
            "m::a_plain_one",
            "m::real_broker",
            "m::real_peers_share",
            "m::real_interop_none",
            "foreign_member_x",
            "foreign_broker_librdkafka_x",
            "foreign_broker_kfake_x",
        ];
        for (at, name) in names.iter().enumerate() {
            let runs: Vec<_> = (0..all.len()).filter(|i| holds(all[*i], name)).collect();
            assert_eq!(runs, [at], "{name}");
        }
    }
}

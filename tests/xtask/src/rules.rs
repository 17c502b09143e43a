//! The tables of `tests/README.md`, a rule and the tests that fail without it, name tests that are there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Below which a table of rules begins with these columns.
const HEAD: &str = "| rule | test |";

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
struct Rule<'a> {
    section: &'a str,
    rule: &'a str,
    tests: Vec<&'a str>,
}

/// The sections with a table of rules, and all rows.
fn read(text: &str) -> (Vec<&str>, Vec<Rule<'_>>) {
    let (mut sections, mut rules) = (Vec::new(), Vec::new());
    let (mut section, mut inside) = ("", false);
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix("### ") {
            section = title;
        }
        if line == HEAD {
            sections.push(section);
        }
        inside = line == HEAD || inside && line.starts_with('|');
        if !inside || line == HEAD || line.starts_with("|---") {
            continue;
        }
        let (rule, tests) = line.trim_matches('|').split_once('|').unwrap_or((line, ""));
        // What stands between backticks is a test; what is said around it is for readers.
        let tests = tests.split('`').skip(1).step_by(2).collect();
        rules.push(Rule { section, rule: rule.trim(), tests });
    }
    (sections, rules)
}

/// The file that a test is in, and its function. Files without a folder are scenarios; modules are the
/// core's.
fn place(test: &str, root: &Path) -> Option<(PathBuf, String)> {
    let (file, name) = test.rsplit_once("::")?;
    // A method of a class stands behind its class.
    let file = if file.contains('.') { file.split("::").next()? } else { file };
    let candidates = match file {
        file if file.contains('/') => vec![file.to_owned()],
        file if file.contains('.') => vec![format!("tests/scenarios/tests/scenarios/{file}")],
        module => {
            let path = module.trim_end_matches("::tests").replace("::", "/");
            ["", "/mod", "/tests"].map(|more| format!("core/src/{path}{more}.rs")).into()
        }
    };
    let there = candidates.into_iter().map(|path| root.join(path)).find(|path| path.is_file())?;
    Some((there, name.to_owned()))
}

/// Whether a file's text defines a function of this name.
fn defines(file: &Path, text: &str, name: &str) -> bool {
    let before: &[&str] = match file.extension().and_then(|e| e.to_str()) {
        Some("rs") => &["fn "],
        Some("py") => &["def "],
        Some("go") => &["func "],
        // Programs in C have functions, and checks by name.
        _ => &["void ", "int ", "bool ", "TEST(", "CHECK(", "\""],
    };
    before.iter().any(|before| {
        text.match_indices(&format!("{before}{name}")).any(|(at, found)| {
            let after = text[at + found.len()..].chars().next();
            after.is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
        })
    })
}

/// What is wrong with the tables, a line each.
fn wrong(text: &str, root: &Path) -> Vec<String> {
    let (sections, rules) = read(text);
    let mut files: HashMap<PathBuf, String> = HashMap::new();
    let empty =
        sections.iter().filter(|section| rules.iter().all(|rule| rule.section != **section));
    let mut wrong: Vec<String> = empty.map(|section| format!("{section}: no rule")).collect();
    for Rule { section, rule, tests } in rules {
        if tests.is_empty() || rule.is_empty() {
            wrong.push(format!("{section}: '{rule}' has no test"));
        }
        for test in tests {
            let found = place(test, root).is_some_and(|(file, name)| {
                let text = files
                    .entry(file.clone())
                    .or_insert_with(|| fs::read_to_string(&file).unwrap_or_default());
                defines(&file, text, &name)
            });
            if !found {
                wrong.push(format!("{section}: '{rule}': there is no {test}"));
            }
        }
    }
    wrong
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_rule_names_tests_that_are_there() {
    let text = fs::read_to_string(root().join("tests/README.md")).unwrap();
    assert!(read(&text).0.len() > 10, "the tables are not found");
    let wrong = wrong(&text, root());
    assert!(wrong.is_empty(), "{} rules of tests/README.md:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_test_is_found_by_its_file_and_its_whole_name() {
    let found = |test: &str| {
        place(test, root()).is_some_and(|(file, name)| {
            let text = fs::read_to_string(&file).unwrap();
            defines(&file, &text, &name)
        })
    };
    let here = "tests/xtask/src/rules.rs::a_test_is_found_by_its_file_and_its_whole_name";
    assert!(found(here) && found("errors.rs::use_after_close"));
    assert!(found("error::words::each_is_followed_by_advice_that_fits_it"));
    for missing in [
        &here[..here.len() - 5],
        "errors.rs::use_after_clos",
        "no_such_file.rs::use_after_close",
        "no::such::module",
        "use_after_close",
        "",
    ] {
        assert!(!found(missing), "{missing}");
    }
    let c = Path::new("x.c");
    assert!(defines(c, "static void test_a(void)", "test_a") && !defines(c, "test_a()", "test_a"));
    let python = Path::new("x.py");
    assert!(defines(python, "class A:\n    async def test_a(self):", "test_a"));
    assert!(defines(Path::new("x.go"), "func TestA(t *testing.T) {", "TestA"));
}

#[test]
fn a_row_without_a_test_is_wrong_and_so_is_a_test_that_is_not_there() {
    let text = "| rule | other |\n|---|---|\n| no rule | |\n\n### One\n\n| rule | test |\n|---|---|\n\
                | good | `errors.rs::use_after_close`, `errors.rs::a_port_that_hangs_up` |\n\
                | bare | errors.rs::use_after_close |\n| gone | `errors.rs::nothing` |\n\n\
                | rule | later |\n### Two\n| rule | test |\n|---|---|\n";
    let (sections, rules) = read(text);
    assert_eq!((sections, rules.len()), (vec!["One", "Two"], 3));
    assert_eq!(rules[0].tests.len(), 2);
    let wanted =
        ["Two: no rule", "One: 'bare' has no test", "One: 'gone': there is no errors.rs::nothing"];
    assert_eq!(wrong(text, root()), wanted);
}

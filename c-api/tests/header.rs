//! The header, the list of exports and the source name the same functions.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The `ottla_...` names that are followed by a parenthesis.
fn called(line: &str) -> Option<&str> {
    let name = &line[line.find("ottla_")?..line.find('(')?];
    let name = name.rsplit([' ', '*']).next()?;
    name.starts_with("ottla_").then_some(name)
}

#[test]
fn name_the_same_functions() {
    let listed: Vec<String> = read("symbols.txt").lines().map(str::to_owned).collect();
    assert!(listed.is_sorted(), "symbols.txt is sorted");
    let listed: BTreeSet<String> = listed.into_iter().collect();

    let header = read("include/ottla.h");
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase()))
        // What C++ makes of a macro is no export.
        .filter(|l| !l.starts_with("inline "))
        .filter_map(|l| called(l).map(str::to_owned))
        .collect();
    assert_eq!(declared, listed, "include/ottla.h (left) and symbols.txt (right)");

    let mut exported = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let source = read(&path);
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if line == "#[unsafe(no_mangle)]" {
                let line = lines.next().expect("a function follows");
                exported.insert(called(line).expect("a function").to_owned());
            }
        }
    }
    assert_eq!(exported, listed, "the source (left) and symbols.txt (right)");
}

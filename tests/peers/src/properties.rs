//! Files of properties as Java has them: `--command-config` and `--consumer.config`.

use std::path::Path;

/// The properties of a file, in its order.
///
/// # Errors
/// It cannot be read, or is not text.
pub fn load(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(parse(&text))
}

/// `name=value`, `name: value` or `name value`; `#` and `!` begin comments; a backslash at the end of a line goes on with the
/// next, elsewhere it takes the character behind it as it is (`\t` and `\n` aside).
fn parse(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.trim_start().to_owned();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        while goes_on(&line) {
            line.pop();
            let Some(next) = lines.next() else { break };
            line.push_str(next.trim_start());
        }
        all.push(split(&line));
    }
    all
}

/// Whether it ends with a backslash that is not taken as it is.
fn goes_on(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

fn split(line: &str) -> (String, String) {
    let (mut name, mut chars) = (String::new(), line.chars().peekable());
    while let Some(c) = chars.next_if(|c| !matches!(c, '=' | ':' | ' ' | '\t')) {
        name.push(if c == '\\' { plain(chars.next()) } else { c });
    }
    let blank = |c: &char| matches!(c, ' ' | '\t');
    while chars.next_if(blank).is_some() {}
    let _sign = chars.next_if(|c| matches!(c, '=' | ':'));
    while chars.next_if(blank).is_some() {}
    let mut value = String::new();
    while let Some(c) = chars.next() {
        value.push(if c == '\\' { plain(chars.next()) } else { c });
    }
    (name, value)
}

fn plain(escaped: Option<char>) -> char {
    match escaped {
        Some('t') => '\t',
        Some('n') => '\n',
        Some(other) => other,
        None => '\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_java_reads_them() {
        let text = "# a comment\n! one more\n\na=1\n b : two words \nc 3\nd\n\
                    e=x\\\n   y\nf\\=g=h\\\\\ng=\\t:=";
        let read = parse(text);
        let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let want = [
            ("a", "1"),
            ("b", "two words "),
            ("c", "3"),
            ("d", ""),
            ("e", "xy"),
            ("f=g", "h\\"),
            ("g", "\t:="),
        ];
        assert_eq!(read, want);
    }
}

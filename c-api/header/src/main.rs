//! Writes `include/ottla.h` from the crate's source, or, with `--check`, says whether the one in
//! the tree is what would be written.

use std::process::ExitCode;

use cbindgen::{Builder, Config, DocumentationStyle, EnumConfig, ExportConfig, Language, Style};

const TOP: &str = include_str!("../../include/top.h");
const BOTTOM: &str = include_str!("../../include/bottom.h");

/// What a program is compiled with; `ottla_version()` is what it runs with.
fn version() -> String {
    let (version, number) = (env!("CARGO_PKG_VERSION"), |text: &str| text.parse().unwrap_or(0u32));
    let (major, minor, patch) = (
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    );
    format!(
        "\n/* The version of this header; ottla_version() is that of the library. */\n\
         #define OTTLA_VERSION \"{version}\"\n\
         #define OTTLA_VERSION_MAJOR {major}\n\
         #define OTTLA_VERSION_MINOR {minor}\n\
         #define OTTLA_VERSION_PATCH {patch}\n\
         /* For comparisons by the preprocessor: 0.1.0 is 1000. */\n\
         #define OTTLA_VERSION_NUMBER {}",
        (major * 1000 + minor) * 1000 + patch
    )
}

fn main() -> ExitCode {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let path = std::path::Path::new(root).join("include/ottla.h");
    let config = Config {
        language: Language::C,
        style: Style::Both,
        cpp_compat: true,
        include_guard: Some("OTTLA_H".into()),
        header: Some(TOP.trim_end().into()),
        after_includes: Some(version()),
        trailer: Some(BOTTOM.trim_end().into()),
        documentation_style: DocumentationStyle::C99,
        line_length: 100,
        enumeration: EnumConfig { enum_class: false, ..EnumConfig::default() },
        export: ExportConfig {
            // Members carry them as int32_t, so that no number from C is undefined behaviour:
            // cbindgen sees no use of them.
            include: [
                "ottla_completion_kind",
                "ottla_start",
                "ottla_isolation",
                "ottla_commit",
                "ottla_group_protocol",
                "ottla_event_kind",
                "ottla_test_group_state",
                "ottla_compression",
                "ottla_partitioner",
                "ottla_acks",
                "ottla_in_doubt",
                "ottla_cluster_change",
                "ottla_verify",
                "ottla_sasl_mechanism",
                "ottla_token_request_kind",
                "ottla_log_level",
                "ottla_owner",
            ]
            .map(Into::into)
            .into(),
            ..ExportConfig::default()
        },
        usize_is_size_t: true,
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(Into::into).into(),
        ..Config::default()
    };
    let bindings = match Builder::new().with_crate(root).with_config(config).generate() {
        Ok(bindings) => bindings,
        Err(error) => {
            eprintln!("the header could not be generated: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut text = Vec::new();
    bindings.write(&mut text);
    if std::env::args().any(|a| a == "--check") {
        if std::fs::read(&path).is_ok_and(|there| there == text) {
            println!("{} is up to date", path.display());
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "{} differs from the source; write it anew with: \
             cargo run -p ottla-header",
            path.display()
        );
        return ExitCode::FAILURE;
    }
    match std::fs::write(&path, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

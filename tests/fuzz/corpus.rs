//! The files of the corpus, and how many cases are made up.

use std::path::Path;

use proptest::test_runner::{Config, FileFailurePersistence};

/// Every file of `corpus/<target>/`, with its name.
pub fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be read").path();
            (path.display().to_string(), std::fs::read(&path).expect("the file can be read"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// The same as text; broken UTF-8 is replaced.
pub fn texts(target: &str) -> Vec<(String, String)> {
    files(target).into_iter().map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

/// So many cases, unless `PROPTEST_CASES` says otherwise.
pub fn cases(count: u32) -> Config {
    let told = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config::default();
    let cases = if told { config.cases } else { count };
    Config { cases, failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))), ..config }
}

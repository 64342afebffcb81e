//! Links the addon against the symbols that Node.js provides at load time.
fn main() {
    // Without this line cargo runs it, and compiles the crate, again whenever any file of the repository has changed.
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_NODE").is_some() {
        napi_build::setup();
    }
}

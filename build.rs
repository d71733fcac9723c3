//! Compiles the helper that is installed into instances (`hooks/`) into a static binary, which the
//! crate embeds. Called directly with `rustc`: it is std only, and a nested cargo would wait for
//! the lock of the outer one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let sources = root.join("hooks/src");
    println!("cargo:rerun-if-changed={}", sources.display());
    println!("cargo:rerun-if-changed=build.rs");
    let output = PathBuf::from(variable("OUT_DIR")).join("orchestrator-hook");
    let target = variable("TARGET");
    let musl = target.replace("-gnu", "-musl");
    // musl makes a third of the size; its target may not be installed.
    let built = (musl != target && is_installed(&musl) && compile(&sources, &output, &musl))
        || compile(&sources, &output, &target);
    assert!(
        built,
        "rustc could not compile hooks/src/main.rs for {target}; its errors are above"
    );
}

/// Does the compiler have the target's standard library?
fn is_installed(target: &str) -> bool {
    let Ok(output) = Command::new(variable("RUSTC"))
        .args(["--print", "target-libdir", "--target", target])
        .output()
    else {
        return false;
    };
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
}

fn compile(sources: &Path, output: &Path, target: &str) -> bool {
    Command::new(variable("RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin"])
        .args(["--crate-name", "orchestrator_hook", "--target", target])
        .args(["-C", "opt-level=s", "-C", "target-feature=+crt-static"])
        .args(["-C", "strip=symbols", "-C", "panic=abort"])
        .arg("-o")
        .arg(output)
        .arg(sources.join("main.rs"))
        .status()
        .is_ok_and(|status| status.success())
}

/// Cargo sets them all for a build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

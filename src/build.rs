//! Watches the built pages, so that a rebuilt page gets into the binary, and says so when they are not there.

fn main() {
    println!("cargo:rerun-if-changed=src/web/dist");
    println!("cargo:rerun-if-changed=src/fleet/migrations");
    if !std::path::Path::new("src/web/dist/device/index.html").exists() {
        println!("cargo:warning=the pages are not built, so the binary will have none: run `make pages`");
    }
}

//! Makes Cargo look again at the migrations that `sqlx::migrate!` embeds.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}

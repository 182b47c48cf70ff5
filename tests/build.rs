//! Links `picket-demo` at a fixed address.
//!
//! It holds every part, in a development build a good 200 MB of code. Position-independent, each of its processes
//! would read 20 MB of relocations at its start and count them as resident memory, the agent in it too; the figure
//! would be the binary's and not the agent's. `picket-agent`, which is what hosts run, stays position-independent.

fn main() {
    println!("cargo:rustc-link-arg-bin=picket-demo=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
}

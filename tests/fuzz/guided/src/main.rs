//! Runs the target that `FUZZ_TARGET` names under libFuzzer. `run` beside this builds and starts it.

#![no_main]

use std::sync::OnceLock;

use nats_server::fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let mut all = storage_and_server();
    all.retain(|target| target.name == name);
    all.pop().expect("there is a target of this name")
}

fn storage_and_server() -> Vec<Target> {
    let mut targets = nats_server::fuzz::targets();
    targets.extend(nats_server::fuzz::storage_targets());
    targets
}

/// Where the inputs that our encoders write are to be put before the first run, when that is wanted.
const SEEDS_VARIABLE: &str = "FUZZ_WRITE_SEEDS";

fn write_seeds(target: &Target) {
    let Some(directory) = std::env::var_os(SEEDS_VARIABLE) else {
        return;
    };
    for (at, seed) in (target.seeds)().into_iter().enumerate() {
        let path = std::path::Path::new(&directory).join(format!("seed-{at}"));
        std::fs::write(path, seed).expect("a seed can be written");
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        let target = TARGET.get_or_init(target);
        write_seeds(target);
    },
    |input: &[u8]| {
        (TARGET.get_or_init(target).run)(input);
    }
);

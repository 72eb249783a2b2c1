//! Replays every input the fuzzer has found worth keeping.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library of its own where the fuzzer builds it")]
mod fuzz;

use std::path::Path;

#[test]
fn every_kept_input_passes() {
    for (target, run) in fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let inputs: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!inputs.is_empty(), "{} has no inputs", directory.display());
        for input in inputs {
            // Said before: a panic tells nothing of the input.
            println!("{}", input.display());
            run(&std::fs::read(&input).unwrap());
        }
    }
}

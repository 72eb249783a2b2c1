#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| skep_dataplane_fuzz::open(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rally_hook::fuzzing::mentions(data));
